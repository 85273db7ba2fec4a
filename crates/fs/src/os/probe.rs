//! What a file system can do.
//!
//! With a scratch directory by trying, leaving nothing behind; without one from the type alone, creating
//! nothing. Never writes outside the scratch directory.

use std::os::fd::BorrowedFd;

use instep_core::path::Name;
use instep_core::time::Mtime;
use rustix::fs::StatVfsMountFlags;

use super::dir::OsDir;
use super::file::OsFile;
use super::{plain, stat_fd};
use crate::api::{Profile, Result};
use crate::place;

/// Local file systems whose behaviour is known.
const FULL: [&str; 7] = ["ext4", "xfs", "btrfs", "tmpfs", "f2fs", "bcachefs", "zfs"];
/// Those on which changes can be made that this kernel does not see.
const REMOTE: [&str; 14] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "afs",
    "lustre",
    "virtiofs",
    "glusterfs",
    "gfs2",
    "ocfs2",
    "fuse",
];
const WITHOUT_CASE: [&str; 8] = [
    "vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "cifs", "smb3",
];
/// Granularities of modification times, the finest first.
const GRANULARITIES: [u32; 7] = [
    1,
    100,
    1_000,
    1_000_000,
    10_000_000,
    1_000_000_000,
    2_000_000_000,
];

/// Changes that take no longer than a tick of any clock.
const CHANGES: u64 = 8;

impl OsDir {
    /// See [`crate::Dir::profile`].
    pub(crate) fn profile(&self, scratch: Option<&Self>) -> Result<Profile> {
        let here = stat_fd(self.fd()).map_err(plain("examine directory"))?;
        let vfs = rustix::fs::fstatvfs(self.fd()).map_err(plain("ask about file system"))?;
        // Sub-volumes have device numbers of their own, which the mount table does not show.
        let fs_type = place::mounts()?
            .into_iter()
            .rfind(|m| m.dev == here.dev)
            .map_or_else(|| self.type_by_magic(), |m| m.fs_type);
        let mut profile = judged(fs_type);
        profile.read_only = vfs.f_flag.contains(StatVfsMountFlags::RDONLY);
        profile.fs_id = match vfs.f_fsid {
            0 => here.dev,
            // A device number, which may be another one after each start of the machine.
            id if profile.fs_type == "xfs" => xfs_id(self.fd()).unwrap_or(id),
            id => id,
        };
        if let Some(scratch) = scratch
            && !profile.read_only
        {
            Probe::new(scratch)?.run(&mut profile)?;
        }
        Ok(profile)
    }

    fn type_by_magic(&self) -> String {
        let magic = rustix::fs::fstatfs(self.fd()).map_or(0, |s| s.f_type as u64);
        match magic {
            0xef53 => "ext4".to_owned(),
            0x5846_5342 => "xfs".to_owned(),
            0x9123_683e => "btrfs".to_owned(),
            0x0102_1994 => "tmpfs".to_owned(),
            0x794c_7630 => "overlay".to_owned(),
            0x6969 => "nfs".to_owned(),
            0x6573_5546 => "fuse".to_owned(),
            other => format!("{other:#x}"),
        }
    }
}

/// The UUID of an XFS, folded. It is in the answer to `XFS_IOC_FSGEOMETRY_V1`, which every kernel gives to anyone.
fn xfs_id(fd: BorrowedFd<'_>) -> Option<u64> {
    /// `struct xfs_fsop_geom_v1`: 112 bytes, the UUID in the 65th to the 80th.
    type Geometry = [u64; 14];
    const GEOMETRY: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<Geometry>(b'X', 100);
    #[expect(unsafe_code, reason = "rustix does not know this call")]
    // SAFETY: the kernel writes a struct of exactly that size, which the opcode tells, and any bits are integers.
    let geometry = unsafe {
        let ask = rustix::ioctl::Getter::<GEOMETRY, Geometry>::new();
        rustix::ioctl::ioctl(fd, ask)
    };
    geometry.ok().map(|g| g[8] ^ g[9])
}

/// What is known of a type without trying.
fn judged(fs_type: String) -> Profile {
    let t = fs_type.as_str();
    let full = FULL.contains(&t);
    let remote = REMOTE.contains(&t) || t.starts_with("fuse.");
    let foreign = WITHOUT_CASE.contains(&t);
    Profile {
        exchange: full,
        unnamed_files: full || t == "overlay",
        leases: full || t == "overlay",
        reflink: matches!(t, "btrfs" | "bcachefs"),
        events_reliable: !remote,
        read_only: false,
        case_sensitive: !foreign,
        modes: !foreign,
        xattrs: full || t == "overlay",
        mtime_granularity_ns: match t {
            "vfat" | "msdos" => 2_000_000_000,
            "ext2" | "ext3" => 1_000_000_000,
            "exfat" => 10_000_000,
            "ntfs" | "ntfs3" | "fuseblk" | "cifs" | "smb3" => 100,
            _ => 1,
        },
        tick_ns: kernel_tick_ns(),
        fs_id: 0,
        fs_type,
    }
}

/// Two files of ours in the scratch directory, removed again at the end.
struct Probe<'a> {
    dir: &'a OsDir,
    a: String,
    b: String,
    upper: String,
}

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).expect("made of letters, digits and dashes")
}

impl<'a> Probe<'a> {
    fn new(dir: &'a OsDir) -> Result<Self> {
        let token = u64::from_le_bytes(place::random_bytes()?);
        let a = format!("probe-{token:016x}-a");
        let upper = a.to_uppercase();
        Ok(Self {
            dir,
            a,
            b: format!("probe-{token:016x}-b"),
            upper,
        })
    }

    fn run(&self, profile: &mut Profile) -> Result<()> {
        let (a, b, dir) = (name(&self.a), name(&self.b), self.dir);
        let first = dir.create_file(a, 0o600)?;
        first.write_all_at(0, &[b'a'; 4096])?;
        let second = dir.create_file(b, 0o600)?;
        profile.reflink = second.reflink_from(&first).is_ok();
        profile.modes =
            dir.set_mode(a, 0o640).is_ok() && dir.stat(a)?.is_some_and(|s| s.mode == 0o640);
        profile.xattrs = first.set_xattr(b"user.instep", Some(b"1")).is_ok();
        profile.case_sensitive = dir.stat(name(&self.upper))?.is_none();
        profile.mtime_granularity_ns = granularity(dir, a)?.unwrap_or(profile.mtime_granularity_ns);
        profile.tick_ns = if stamps_every_change(dir, a, &first)? {
            0
        } else {
            profile.tick_ns.max(profile.mtime_granularity_ns)
        };
        // A descriptor that can write would refuse the lease.
        drop((first, second));
        profile.leases = matches!(dir.open_file(a)?.read_lease(), Ok(Some(_)));
        profile.exchange = dir.exchange(a, dir, b).is_ok();
        dir.remove_file(b)?;
        profile.unnamed_files = dir
            .create_unnamed(0o600)
            .and_then(|f| dir.publish(&f, b))
            .is_ok();
        Ok(())
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        for text in [&self.a, &self.b] {
            // Whatever was not created is not there to be removed.
            drop(self.dir.remove_file(name(text)));
        }
    }
}

/// How long one stamp of the kernel's coarse clock may be in use. A tick may come a little late.
fn kernel_tick_ns() -> u32 {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::RealtimeCoarse).tv_nsec;
    u32::try_from(tick).unwrap_or(10_000_000).saturating_mul(2)
}

/// Whether each of several changes at once gets a stamp of its own, because somebody looked before it.
fn stamps_every_change(dir: &OsDir, name: Name<'_>, file: &OsFile) -> Result<bool> {
    let mut last = dir.stat(name)?.map(|s| s.ctime);
    for at in 0..CHANGES {
        file.write_all_at(at, b"c")?;
        let now = dir.stat(name)?.map(|s| s.ctime);
        if now == last {
            return Ok(false);
        }
        last = now;
    }
    Ok(true)
}

/// The coarsest rounding that explains what became of a time; `None` when none does.
fn granularity(dir: &OsDir, file: Name<'_>) -> Result<Option<u32>> {
    let want = Mtime {
        secs: 1_700_000_001,
        nanos: 123_456_789,
    };
    dir.set_mtime(file, want)?;
    let Some(got) = dir.stat(file)?.and_then(|s| s.mtime.nanos_since_epoch()) else {
        return Ok(None);
    };
    let want = want.nanos_since_epoch().unwrap_or_default();
    Ok(GRANULARITIES
        .into_iter()
        .find(|g| got == want - want % i64::from(*g)))
}
