//! What a simulated file system can do, and the ready-made profiles.

use std::collections::BTreeMap;

/// Which images a power cut may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashModel {
    /// All that POSIX permits: any operations that are not synced, any sectors of data.
    Adversarial,
    /// Directory operations in order up to some instant; data of unsynced files missing or zero.
    Ext4,
    /// As ext4, and the size of a file may be there without its data.
    Xfs,
    /// The state of some instant, plus what was synced by itself.
    Btrfs,
}

/// What a simulated file system can do, and how it behaves.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Where every choice comes from.
    pub seed: u64,
    /// What a power cut leaves.
    pub crash_model: CrashModel,
    /// The type in [`crate::Profile`].
    pub fs_type: String,
    /// The device number.
    pub dev: u64,
    /// Who the process under test is, and owner of everything it makes. Only 0 can give things away.
    pub uid: u32,
    /// Group of everything it makes.
    pub gid: u32,
    /// `RENAME_EXCHANGE` works.
    pub exchange: bool,
    /// `RENAME_NOREPLACE` works.
    pub noreplace: bool,
    /// `O_TMPFILE` works.
    pub unnamed_files: bool,
    /// Read leases work.
    pub leases: bool,
    /// A user's open for writing waits for a lease to end, as on Linux. Otherwise it goes on at once, as
    /// when the lease has been held for too long. A program that saves waits inside its open; one that
    /// only opens is told `EAGAIN`.
    pub leases_block: bool,
    /// `FICLONE` works.
    pub reflink: bool,
    /// Hard links work.
    pub hard_links: bool,
    /// Mode bits are kept.
    pub modes: bool,
    /// Extended attributes are kept.
    pub xattrs: bool,
    /// Names of users, and of the groups with the same numbers.
    pub accounts: BTreeMap<u32, String>,
    /// Nothing can be changed.
    pub read_only: bool,
    /// Names that differ by ASCII case are different names.
    pub case_sensitive: bool,
    /// Modification times are kept to this many nanoseconds.
    pub mtime_granularity_ns: u32,
    /// The kernel's coarse clock: changes within one tick get one stamp.
    pub tick_ns: u32,
    /// A change after the stamp was looked at gets a new one within the tick (Linux 6.13).
    pub multigrain: bool,
    /// A new inode takes the number of one that was freed.
    pub ino_reuse: bool,
    /// Bytes that can be allocated.
    pub capacity_bytes: u64,
    /// Inodes that can exist.
    pub capacity_inodes: u64,
    /// After a power cut, data may be new while the modification time is old.
    pub lazy_times: bool,
    /// Names that one read of a directory returns; the user can act between two.
    pub list_chunk: usize,
    /// `copy_file_range` copies less than asked now and then.
    pub short_copies: bool,
    /// Events that a watcher's queue holds.
    pub event_queue: usize,
    /// Watches that can exist.
    pub max_watches: u64,
    /// Events lost without a trace, in 1000.
    pub event_loss_per_mille: u32,
    /// Events become readable up to this much later.
    pub event_delay_ns: u64,
}

impl SimConfig {
    /// Everything works; a power cut leaves whatever POSIX permits.
    pub fn adversarial(seed: u64) -> Self {
        Self {
            seed,
            crash_model: CrashModel::Adversarial,
            fs_type: "sim".to_owned(),
            dev: 64,
            uid: 1000,
            gid: 1000,
            exchange: true,
            noreplace: true,
            unnamed_files: true,
            leases: true,
            leases_block: false,
            reflink: false,
            hard_links: true,
            modes: true,
            xattrs: true,
            accounts: BTreeMap::from([(0, "root".to_owned()), (1000, "user".to_owned())]),
            read_only: false,
            case_sensitive: true,
            mtime_granularity_ns: 1,
            tick_ns: 4_000_000,
            multigrain: true,
            ino_reuse: true,
            capacity_bytes: 1 << 40,
            capacity_inodes: 1 << 32,
            lazy_times: false,
            list_chunk: 64,
            short_copies: true,
            event_queue: 16_384,
            max_watches: 1 << 20,
            event_loss_per_mille: 0,
            event_delay_ns: 0,
        }
    }

    /// Like ext4 on a current kernel.
    pub fn ext4(seed: u64) -> Self {
        Self {
            crash_model: CrashModel::Ext4,
            fs_type: "ext4".to_owned(),
            ..Self::adversarial(seed)
        }
    }

    /// Like XFS on a current kernel.
    pub fn xfs(seed: u64) -> Self {
        let (fs_type, reflink) = ("xfs".to_owned(), true);
        Self {
            crash_model: CrashModel::Xfs,
            fs_type,
            reflink,
            ino_reuse: false,
            ..Self::adversarial(seed)
        }
    }

    /// Like btrfs on a current kernel.
    pub fn btrfs(seed: u64) -> Self {
        let (fs_type, reflink) = ("btrfs".to_owned(), true);
        Self {
            crash_model: CrashModel::Btrfs,
            fs_type,
            reflink,
            ino_reuse: false,
            ..Self::adversarial(seed)
        }
    }

    /// Like FAT through FUSE: two seconds, no modes, no leases, no exchange, no links, case folded.
    pub fn poor(seed: u64) -> Self {
        Self {
            fs_type: "fuse.poor".to_owned(),
            exchange: false,
            noreplace: false,
            unnamed_files: false,
            leases: false,
            hard_links: false,
            modes: false,
            xattrs: false,
            case_sensitive: false,
            mtime_granularity_ns: 2_000_000_000,
            multigrain: false,
            ..Self::adversarial(seed)
        }
    }
}
