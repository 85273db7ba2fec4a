//! A directory as a replica: the files that say who it is, its records, and whole sequences on a simulated disk.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use instep_chunk::content_id;
use instep_core::id::{ActorId, ContentId, ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_fs::sim::{Save, SimConfig, SimFs};
use instep_fs::{ErrorKind, Kind};
use instep_local::index::Index;
use instep_local::replica::RootGuard;
use instep_local::rules::Rules;
use instep_local::tree::{Ours, ours};
use instep_local::{IgnoreOptions, LocalReplica, Parts, Settings, recover, root};
use instep_replica::env::Env;
use instep_replica::{Book, Replica};
use instep_store::{Durability, IndexStore as _, MemoryDisk, Table};
use tempfile::TempDir;

use super::acts::{Hands, turns};
use crate::feed::Feed;

/// What a batch was about to do.
pub(super) fn intent(bytes: &[u8]) -> String {
    match recover::decode(bytes) {
        Ok(read) => format!("{} paths", read.len().min(3)),
        Err(e) => super::vocabulary::refused(e),
    }
}

/// The marker of a root.
pub(super) fn marker(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return "no text".into();
    };
    let parts = root::memberships_in(text);
    let mut shares: Vec<ShareId> = parts.iter().map(|m| m.share).collect();
    shares.dedup();
    let roles = parts.iter().map(|m| format!("{:?} {:?}", m.role, m.kind));
    roles.take(3).collect::<Vec<_>>().join(", ")
}

/// A master list of rules, as a root compiles it.
pub(super) fn master_list(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().map(str::to_owned);
    let options = IgnoreOptions {
        packs: lines.next().into_iter().collect(),
        master: lines.collect(),
        gitignore: false,
    };
    let rules = Rules::new(&options);
    assert!(!rules.replace(&options), "the same rules are a change");
    let problems = rules.take_problems();
    problems
        .iter()
        .for_each(|p| super::assert_harmless(&p.to_string()));
    format!("{} problems", problems.len().min(3))
}

thread_local! {
    static ROOT: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// Files of ours in a real root and in the state directory, read as they are: marker, lock, what is remembered.
pub(super) fn root_files(bytes: &[u8]) -> String {
    ROOT.with_borrow_mut(|slot| {
        let top = slot.get_or_insert_with(|| tempfile::tempdir().expect("a directory can be made"));
        let (root, state) = (top.path().join("root"), top.path().join("state"));
        let (inside, replicas) = (root.join(".instep"), state.join("replicas"));
        fs::create_dir_all(&inside).expect("it can be made");
        fs::create_dir_all(&replicas).expect("it can be made");
        let mut feed = Feed::new(bytes);
        let id = ReplicaId([1; 16]).to_string();
        let put = |file: &Path, bytes: &[u8]| fs::write(file, bytes).expect("it can be written");
        put(&inside.join("marker.json"), feed.piece());
        put(&inside.join("lock"), feed.piece());
        let record = String::from_utf8_lossy(feed.rest()).replace("ROOT", &root.to_string_lossy());
        put(&replicas.join(format!("{id}.json")), record.as_bytes());
        let seen = root::inspect(&root, &state).expect("looking at a root is no failure");
        let known = root::known_at(&root, &state);
        let is_bare = root::is_bare_mount_point(&root, &state);
        assert!(seen.is_dir && seen.exists);
        format!(
            "{} memberships, {} known, bare {is_bare}",
            seen.memberships.len().min(2),
            known.len()
        )
    })
}

/// A machine on which time moves when it is asked for.
struct Machine {
    fs: SimFs,
    drawn: AtomicU64,
}

impl Env for Machine {
    fn wall_ns(&self) -> i64 {
        self.fs.advance(1000);
        self.fs.now()
    }

    fn monotonic_ns(&self) -> u64 {
        self.wall_ns().cast_unsigned()
    }

    fn sleep_ms(&self, ms: u64) {
        self.fs.advance(ms.cast_signed() * 1_000_000);
    }

    fn random(&self) -> [u8; 16] {
        let n = self.drawn.fetch_add(1, Ordering::Relaxed);
        u128::from(n)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834)
            .to_be_bytes()
    }

    fn workers(&self) -> usize {
        1
    }

    fn boot_id(&self) -> String {
        "boot-1".into()
    }

    fn spawn(&self, _: &str, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

#[derive(Debug)]
struct InPlace;

impl RootGuard for InPlace {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A replica on a simulated disk.
struct Disk {
    env: Arc<Machine>,
    store: MemoryDisk,
    replica: Option<LocalReplica>,
}

impl Disk {
    fn new(store: MemoryDisk) -> Self {
        let env = Machine {
            fs: SimFs::new(SimConfig::ext4(1)),
            drawn: AtomicU64::new(1),
        };
        Self {
            env: Arc::new(env),
            store,
            replica: None,
        }
    }

    fn open(&mut self) -> instep_replica::Result<()> {
        self.replica = None;
        let fs = self.env.fs.clone();
        let top = fs.root();
        if let Err(e) = top.make_dir(ours(".instep"), 0o700) {
            assert_eq!(e.kind(), ErrorKind::Taken, "make .instep: {e}");
        }
        let base = top.open_dir(ours(".instep")).expect("it was made");
        let dirs = Ours::open(base).expect("they can be made");
        let parts = Parts {
            id: ReplicaId([1; 16]),
            share: ShareId([7; 16]),
            profile: top.profile(Some(&dirs.base)).expect("it can be told"),
            root: top,
            ours: Some(dirs),
            index: Index::open(Box::new(self.store.open()), ActorId([1; 8]))?,
            rules: Rules::default(),
            settings: Settings {
                poll: true,
                ..Settings::default()
            },
            new: true,
            guard: Box::new(InPlace),
            watcher: Box::new(move || Ok(fs.watcher())),
            threaded: false,
        };
        let replica = LocalReplica::assemble(self.env.clone(), parts)?;
        replica.begin()?;
        self.replica = Some(replica);
        Ok(())
    }

    /// The contents of files and links inside or outside our directory.
    fn at(&self, inside: bool) -> BTreeSet<ContentId> {
        let all = self.env.fs.snapshot().into_iter();
        let here = all.filter(|(path, _)| path.is_reserved() == inside);
        here.filter_map(|(_, view)| match view.kind {
            Kind::File => Some(content_id(&view.content)),
            Kind::Link => Some(content_id(&view.target)),
            Kind::Dir | Kind::Special => None,
        })
        .collect()
    }
}

impl Hands for Disk {
    fn replica(&self) -> &dyn Replica {
        self.replica.as_ref().expect("it is open between calls")
    }

    fn write(&self, path: &RelPath, bytes: &[u8]) {
        if !path.is_reserved() {
            drop(
                self.env
                    .fs
                    .write_file(path.as_bytes(), bytes, Save::InPlace),
            );
        }
    }

    fn mkdir(&self, path: &RelPath) {
        if !path.is_reserved() {
            drop(self.env.fs.mkdir_all(path.as_bytes()));
        }
    }

    fn link(&self, path: &RelPath, target: &[u8]) {
        if !path.is_reserved() {
            drop(self.env.fs.symlink(target, path.as_bytes()));
        }
    }

    fn remove(&self, path: &RelPath) {
        if !path.is_reserved() && !path.is_root() {
            drop(self.env.fs.remove_all(path.as_bytes()));
        }
    }

    fn rename(&self, from: &RelPath, to: &RelPath) {
        if !from.is_reserved() && !to.is_reserved() && !from.is_root() && !to.is_root() {
            drop(self.env.fs.rename(from.as_bytes(), to.as_bytes()));
        }
    }

    fn contents(&self) -> BTreeSet<ContentId> {
        self.at(false)
    }

    fn kept(&self) -> BTreeSet<ContentId> {
        self.at(true)
    }

    fn die(&mut self) {
        self.replica = None;
        self.env.fs.kill();
        self.store.kill();
        self.open().expect("whatever was recorded, it opens again");
    }
}

/// A sequence of calls.
pub(super) fn machine(bytes: &[u8]) -> String {
    let mut disk = Disk::new(MemoryDisk::new());
    disk.open().expect("a new replica opens");
    turns(bytes, &mut disk)
}

/// An index with records and rows that nobody honest wrote, opened and recovered from, and then used.
pub(super) fn index_records(bytes: &[u8]) -> String {
    let mut feed = Feed::new(bytes);
    let store = MemoryDisk::new();
    let mut open = store.open();
    const KEYS: [&[u8]; 8] = [
        b"actor",
        b"counter",
        b"clock",
        b"epoch",
        b"rejoining",
        b"totals",
        b"generation",
        b"boot",
    ];
    for _ in 0..feed.below(12) {
        match feed.below(4) {
            0 => {
                let (path, row) = (feed.path(), feed.row());
                drop(open.put(&path, &row));
            }
            1 => {
                let key = KEYS[feed.below(KEYS.len())];
                drop(open.put_record(Table::Meta, key, feed.piece()));
            }
            2 => {
                let dir = feed.path();
                let digest = feed.bytes(16).try_into().ok();
                drop(open.put_digest(&dir, digest));
            }
            _ => {
                let table = Table::ALL[feed.below(Table::ALL.len())];
                let key = feed.piece();
                drop(open.put_record(table, key, feed.piece()));
            }
        }
    }
    open.commit(Durability::Power)
        .expect("memory takes everything");
    drop(open);
    let mut disk = Disk::new(store);
    for n in 0..feed.below(4) {
        disk.write(&feed.path(), format!("content {n}").as_bytes());
    }
    match disk.open() {
        Ok(()) => {
            let replica = disk.replica();
            for (key, _) in replica.records(Book::Trash).unwrap_or_default() {
                drop(replica.check_kept(&key));
            }
            drop(replica.purge(i64::MAX));
            drop(replica.mint());
            drop(replica.open(&feed.path(), feed.content()));
            drop(replica.close());
            turns(feed.rest(), &mut disk)
        }
        Err(e) => format!("{:?}", e.kind),
    }
}

/// Markers to begin with.
pub(super) fn marker_seeds() -> Vec<Vec<u8>> {
    let text = r#"{"format":1,"replica":"01010101010101010101010101010101","evidence":{"fs_id":1,"root_ino":2,"state_ino":3,"state_btime":[4,5]},"shares":{"07070707070707070707070707070707":{"role":"source","kind":"mirror","label":"A","members":[["B","/b"]]}}}"#;
    vec![text.into(), b"{}".to_vec()]
}

/// Files of ours to begin with.
pub(super) fn root_seeds() -> Vec<Vec<u8>> {
    let record = r#"{"path":"ROOT","evidence":{"fs_id":1,"root_ino":2,"state_ino":3,"state_btime":[4,5]},"generation":7,"generations":{"07070707070707070707070707070707":7}}"#;
    let mut out = Vec::new();
    for piece in [&marker_seeds()[0][..], b"pid 1: instep sync a b"] {
        out.extend_from_slice(&(piece.len() as u16).to_le_bytes());
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(record.as_bytes());
    vec![out, vec![0, 0, 0, 0]]
}

/// Intents to begin with.
pub(super) fn intent_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0]];
    for entry in super::vocabulary::entry_seeds() {
        let mut out = vec![1, 3];
        out.extend_from_slice(b"d/a");
        out.push(1);
        out.extend_from_slice(&[7; 32]);
        out.extend_from_slice(&entry);
        out.push(1);
        out.extend_from_slice(&[1; 8]);
        out.push(5);
        seeds.push(out);
    }
    seeds
}

/// Master lists to begin with.
pub(super) fn master_seeds() -> Vec<Vec<u8>> {
    vec![
        b"os-litter\n*.iso\n!keep.iso\n[\n".to_vec(),
        b"\n/a\n".to_vec(),
    ]
}

/// Records to begin with: numbers at their ends, keys that are no names, an intent.
pub(super) fn index_seeds() -> Vec<Vec<u8>> {
    let mut seeds = super::acts::seeds();
    for key in 0..8 {
        let all = [
            1, 1, key, 10, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1,
        ];
        seeds.push([&all[..], &[0, 6, 1, 0, 6, 0]].concat());
    }
    let record = super::records::record_seeds().swap_remove(2);
    for (table, key) in [(4, "../../x"), (3, "a/b"), (4, "")] {
        let mut out = vec![1, 3, table, key.len() as u8, 0];
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&(record.len() as u16).to_le_bytes());
        out.extend_from_slice(&record);
        out.extend_from_slice(&[0, 4, 5, 7, 0]);
        out.extend_from_slice(key.as_bytes());
        seeds.push(out);
    }
    seeds
}
