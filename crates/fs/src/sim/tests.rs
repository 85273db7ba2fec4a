//! What the simulator promises to those who test with it.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod attributes;
mod calls;
mod crashes;
mod events;
mod faults;
mod leases;
mod linux;

use instep_core::path::{Name, RelPath};
use instep_core::time::Mtime;
use rustix::io::Errno;

use super::*;
use crate::api::{ErrorKind, Kind};
use crate::watch::Hint;

fn n(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).unwrap()
}

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

impl SimFs {
    fn sim_root(&self) -> SimDir {
        self.sim_dir_at(b"").unwrap()
    }
}

fn machine() -> (SimFs, SimDir) {
    let fs = SimFs::new(SimConfig::adversarial(1));
    let root = fs.sim_root();
    (fs, root)
}

fn all_models() -> [SimConfig; 4] {
    [
        SimConfig::adversarial(1),
        SimConfig::ext4(1),
        SimConfig::xfs(1),
        SimConfig::btrfs(1),
    ]
}

fn put(dir: &SimDir, name: &str, bytes: &[u8]) -> SimFile {
    let file = dir.create_file(n(name), 0o644).unwrap();
    file.write_all_at(0, bytes).unwrap();
    file
}

/// A file that is durable in content and name.
fn put_durably(dir: &SimDir, name: &str, bytes: &[u8]) {
    put(dir, name, bytes).sync_data().unwrap();
    dir.sync().unwrap();
}

fn read(dir: &SimDir, name: &str) -> Vec<u8> {
    let file = dir.open_file(n(name)).unwrap();
    let mut buf = vec![0; file.stat().unwrap().size as usize];
    assert_eq!(file.read_at(0, &mut buf).unwrap(), buf.len());
    buf
}

fn names(dir: &SimDir) -> Vec<String> {
    let mut out = Vec::new();
    dir.list(&mut |name, _| out.push(String::from_utf8_lossy(name).into_owned()))
        .unwrap();
    out
}

fn kind_of<T>(r: Result<T>) -> ErrorKind {
    match r {
        Ok(_) => panic!("a call that must fail has worked"),
        Err(e) => e.kind(),
    }
}
