//! Content in files of this replica, and bringing content into a file of ours.
//!
//! Invariant: bytes count as a version's content only if they hash to its id, or were cloned or copied inside
//! the kernel from a file whose fingerprint the index vouches for, before and after.

use std::os::fd::BorrowedFd;

use instep_chunk::hash::Hasher;
use instep_core::id::ContentId;
use instep_fs::{ErrorKind, File, Stat};
use instep_replica::Content;

use crate::reading::KeptContent;

/// Bytes copied in one piece.
const BLOCK: usize = 1024 * 1024;
/// Files of at least this size are copied inside the kernel.
const IN_KERNEL_BYTES: u64 = 1024 * 1024;
/// Bytes copied inside the kernel by one call.
const IN_KERNEL_PIECE: u64 = 8 * 1024 * 1024;

/// A file of this replica, opened for reading.
#[derive(Debug)]
pub struct FileContent {
    file: File,
    stat: Stat,
    vouched: bool,
}

impl FileContent {
    /// Takes an open file and what it looked like when it was opened. It is read and hashed like anything
    /// else.
    pub fn new(file: File, stat: Stat) -> Self {
        Self {
            file,
            stat,
            vouched: false,
        }
    }

    /// As [`FileContent::new`], of a file that looks exactly as the index recorded it: it may be cloned
    /// without being read.
    pub fn vouched(file: File, stat: Stat) -> Self {
        Self {
            vouched: true,
            ..Self::new(file, stat)
        }
    }
}

impl Content for FileContent {
    fn size(&self) -> u64 {
        self.stat.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        self.file
            .read_at(offset, buf)
            .map_err(|e| std::io::Error::from_raw_os_error(e.errno))
    }

    fn next_data(&mut self, offset: u64) -> Option<(u64, u64)> {
        let rest = (offset < self.stat.size).then_some((offset, self.stat.size));
        // Without holes there is nothing to ask.
        if self.stat.blocks.saturating_mul(512) >= self.stat.size {
            return rest;
        }
        // Where nobody can say what is a hole, all of it is read: what is not read counts as zeros.
        self.file.next_data(offset).unwrap_or(rest)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_fd().filter(|_| self.vouched)
    }

    fn unchanged(&self) -> bool {
        self.file
            .stat()
            .is_ok_and(|s| crate::print::print(&s) == crate::print::print(&self.stat))
    }
}

/// Why content did not arrive.
#[derive(Debug)]
pub enum Failed {
    /// It is not what was asked for (any more): the source changed.
    Changed,
    /// Reading failed.
    Read(std::io::Error),
    /// Writing failed.
    Write(instep_fs::Error),
}

impl From<instep_fs::Error> for Failed {
    fn from(e: instep_fs::Error) -> Self {
        Self::Write(e)
    }
}

/// Content of at most so many bytes is read as a whole before it is written anywhere.
const PROVEN_BYTES: u64 = 64 * 1024;

/// Content that is what was asked for, if it is small; else as it came.
pub fn proven(
    mut from: Box<dyn Content>,
    want: ContentId,
    size: u64,
) -> Result<Box<dyn Content>, Failed> {
    if from.size() != size {
        return Err(Failed::Changed);
    }
    if size > PROVEN_BYTES || from.verified().is_some() {
        return Ok(from);
    }
    let mut bytes = vec![0; size as usize];
    let mut at = 0;
    while at < bytes.len() {
        match from.read_at(at as u64, &mut bytes[at..]) {
            Ok(0) => return Err(Failed::Changed),
            Ok(n) => at += n,
            Err(e) => return Err(Failed::Read(e)),
        }
    }
    match KeptContent::of(bytes) {
        kept if kept.is(want) => Ok(Box::new(kept)),
        _ => Err(Failed::Changed),
    }
}

/// Brings content into an empty file of ours: cloned where the file system can, else copied and hashed on
/// the way, holes kept.
pub fn fill(
    into: &File,
    from: &mut dyn Content,
    want: ContentId,
    size: u64,
    reflink: bool,
    buffer: &mut Vec<u8>,
) -> Result<(), Failed> {
    if from.size() != size {
        return Err(Failed::Changed);
    }
    if let Some((id, bytes)) = from.verified() {
        return if id == want {
            Ok(into.write_all_at(0, bytes)?)
        } else {
            Err(Failed::Changed)
        };
    }
    if reflink && size >= 64 * 1024 && clone(into, from)? {
        return if from.unchanged() {
            Ok(())
        } else {
            Err(Failed::Changed)
        };
    }
    if size >= IN_KERNEL_BYTES && copy(into, from, size)? {
        return if from.unchanged() {
            Ok(())
        } else {
            Err(Failed::Changed)
        };
    }
    buffer.resize(BLOCK.min(size as usize).max(1), 0);
    let mut hasher = Hasher::new();
    let mut at = 0;
    while let Some((start, end)) = from.next_data(at) {
        let end = end.min(size);
        hash_zeros(&mut hasher, start.saturating_sub(at));
        at = start;
        while at < end {
            let n = (end - at).min(buffer.len() as u64) as usize;
            let got = from.read_at(at, &mut buffer[..n]).map_err(Failed::Read)?;
            if got == 0 {
                return Err(Failed::Changed);
            }
            hasher.update(&buffer[..got]);
            into.write_all_at(at, &buffer[..got])?;
            at += got as u64;
        }
        if at >= size {
            break;
        }
    }
    if at < size {
        hash_zeros(&mut hasher, size - at);
        into.set_len(size)?;
    }
    if hasher.finish() == want {
        Ok(())
    } else {
        Err(Failed::Changed)
    }
}

/// Whether it could be cloned.
fn clone(into: &File, from: &mut dyn Content) -> Result<bool, Failed> {
    let Some(fd) = from.as_fd() else {
        return Ok(false);
    };
    match into.reflink_from_fd(fd) {
        Ok(()) => Ok(true),
        Err(e) => match e.kind() {
            ErrorKind::NoSpace | ErrorKind::Crashed => Err(Failed::Write(e)),
            _ => Ok(false),
        },
    }
}

/// Whether it could be copied inside the kernel, holes kept. Writing to the device starts at once, so that
/// the barrier at the end has less to wait for.
fn copy(into: &File, from: &mut dyn Content, size: u64) -> Result<bool, Failed> {
    let mut at = 0;
    while let Some((start, end)) = from.next_data(at) {
        at = start;
        let end = end.min(size);
        while at < end {
            let Some(fd) = from.as_fd() else {
                return Ok(false);
            };
            let piece = (end - at).min(IN_KERNEL_PIECE);
            match into.copy_range_from_fd(fd, at, piece) {
                Ok(0) => return Err(Failed::Changed),
                Ok(n) => {
                    into.start_writeback(at, n)?;
                    at += n;
                }
                Err(e) => {
                    return match e.kind() {
                        ErrorKind::NoSpace | ErrorKind::Crashed | ErrorKind::Io => {
                            Err(Failed::Write(e))
                        }
                        // Not between these files: read and write instead, from the start.
                        _ => Ok(false),
                    };
                }
            }
        }
        if at >= size {
            break;
        }
    }
    if at < size {
        into.set_len(size)?;
    }
    Ok(true)
}

fn hash_zeros(hasher: &mut Hasher, mut count: u64) {
    const ZEROS: &[u8] = &[0; 64 * 1024];
    while count > 0 {
        let n = count.min(ZEROS.len() as u64) as usize;
        hasher.update(&ZEROS[..n]);
        count -= n as u64;
    }
}

/// The id of a file's content, and if `probe` is set its randomness, if it stands still while it is read. The
/// buffer begins with the whole content afterwards, or is shorter than it.
pub fn hash_file(
    file: &File,
    before: &Stat,
    probe: bool,
    buffer: &mut Vec<u8>,
) -> Result<Hashed, instep_fs::Error> {
    buffer.resize(BLOCK.min(before.size as usize + 1), 0);
    let mut content = FileContent::new(file.clone(), *before);
    let mut hasher = Hasher::new();
    let mut entropy = instep_chunk::entropy::Entropy::default();
    let mut at = 0;
    let mut whole = true;
    while let Some((start, end)) = content.next_data(at) {
        hash_zeros(&mut hasher, start.saturating_sub(at));
        whole &= start == 0 && at == 0;
        at = start;
        while at < end {
            let n = (end - at).min(buffer.len() as u64) as usize;
            let got = file.read_at(at, &mut buffer[..n])?;
            if got == 0 {
                return Ok(Hashed::Changing);
            }
            if probe && at < instep_chunk::entropy::PROBE_BYTES {
                entropy.update(&buffer[..got]);
            }
            hasher.update(&buffer[..got]);
            whole &= at == 0;
            at += got as u64;
        }
        if at >= before.size {
            break;
        }
    }
    hash_zeros(&mut hasher, before.size - at.min(before.size));
    if !whole || at < before.size {
        // Holes were not read, and a second piece is where the first one was.
        buffer.clear();
    }
    let after = file.stat()?;
    if after.size != before.size || after.mtime != before.mtime || after.ctime != before.ctime {
        return Ok(Hashed::Changing);
    }
    Ok(Hashed::Content {
        id: hasher.finish(),
        high_entropy: entropy.is_high(),
    })
}

/// What hashing a file came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashed {
    /// Its content.
    Content {
        /// Its id.
        id: ContentId,
        /// It looks random.
        high_entropy: bool,
    },
    /// It changed meanwhile.
    Changing,
}
