//! Owner, group and extended attributes between simulated machines, each with accounts of its own.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use instep_core::attributes::Xattrs;
use instep_core::limits::XATTR_BYTES_MAX;
use instep_core::path::RelPath;
use instep_core::plan::Code;
use instep_engine::report::Silent;
use instep_engine::session::End;
use instep_engine::{Session, SessionOptions};
use instep_fs::sim::{Save, SimConfig};
use instep_replica::env::Env;
use instep_replica::{Replica, Waker};

use crate::support::sim::{Sim, SimEnv};

/// A machine that acts as this user and knows these accounts besides root; it carries everything.
fn machine(tag: u8, uid: u32, accounts: &[(u32, &str)]) -> Sim {
    let mut all = BTreeMap::from([(0, "root".to_owned())]);
    all.extend(accounts.iter().map(|(id, name)| (*id, (*name).to_owned())));
    let config = SimConfig {
        uid,
        gid: uid,
        accounts: all,
        ..SimConfig::ext4(u64::from(tag))
    };
    let mut sim = Sim::tagged(config, false, tag);
    carry(&mut sim, true, true);
    sim
}

/// Time goes by on all machines together.
struct Together(Vec<Arc<SimEnv>>);

impl Env for Together {
    fn wall_ns(&self) -> i64 {
        self.0[0].wall_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        self.0[0].monotonic_ns()
    }

    fn sleep_ms(&self, ms: u64) {
        self.0.iter().for_each(|env| env.sleep_ms(ms));
    }

    fn wait(&self, _: &Waker, timeout: Duration) {
        self.sleep_ms(timeout.as_millis() as u64 + 1);
    }

    fn random(&self) -> [u8; 16] {
        self.0[0].random()
    }

    fn workers(&self) -> usize {
        1
    }

    fn boot_id(&self) -> String {
        self.0[0].boot_id()
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) {
        self.0[0].spawn(name, work);
    }
}

fn together(machines: &[&mut Sim]) -> Arc<dyn Env> {
    Arc::new(Together(machines.iter().map(|m| m.env.clone()).collect()))
}

fn carry(sim: &mut Sim, owner: bool, xattrs: bool) {
    (sim.owner, sim.xattrs) = (owner, xattrs);
    sim.open();
}

/// Brings machines in step.
fn sync(machines: &mut [&mut Sim]) -> End {
    let now = machines.iter().map(|m| m.fs().now()).max().unwrap() + 1_000_000_000;
    let mut opened = Vec::new();
    for sim in machines.iter_mut() {
        sim.fs().set_now(now);
        opened.push(Arc::new(sim.replica.take().unwrap()));
    }
    let replicas = opened.iter().map(|r| r.clone() as Arc<dyn Replica>);
    let options = SessionOptions {
        once: true,
        ..SessionOptions::default()
    };
    let env = together(machines);
    let mut session = Session::start(env, replicas.collect(), options, Box::new(Silent)).unwrap();
    let end = session.run().unwrap();
    assert_eq!(end.summary.waiting, 0, "{end:?}");
    drop(session);
    opened.iter().for_each(|r| r.close().unwrap());
    drop(opened);
    machines.iter_mut().for_each(|sim| sim.open());
    end
}

fn in_step(machines: &mut [&mut Sim]) {
    let end = sync(machines);
    assert_eq!(end.problems, []);
    assert_eq!(sync(machines).summary.changes, 0, "it never comes to rest");
}

fn put(sim: &Sim, path: &str, bytes: &str) {
    sim.fs().write_file(path, bytes, Save::InPlace).unwrap();
}

fn owner(sim: &Sim, path: &str) -> (u32, u32) {
    let stat = sim.fs().stat(path).unwrap();
    (stat.uid, stat.gid)
}

fn one(name: &str, value: &[u8]) -> Xattrs {
    let all = BTreeMap::from([(name.as_bytes().into(), value.into())]);
    Xattrs::new(all).unwrap()
}

#[test]
fn a_chown_is_forgotten_by_the_other_side() {
    let mut a = machine(1, 0, &[(33, "www"), (500, "ann")]);
    let mut b = machine(2, 0, &[(99, "www")]);
    a.fs().mkdir_all("d").unwrap();
    put(&a, "d/f", "text");
    a.fs().symlink("f", "d/l").unwrap();
    for path in ["d", "d/f", "d/l"] {
        a.fs().chown(path, 33, 33).unwrap();
    }
    in_step(&mut [&mut a, &mut b]);
    for path in ["d", "d/f", "d/l"] {
        assert_eq!(owner(&b, path), (99, 99), "{path}: by name");
    }
    let before = b.fs().stat("d/f").unwrap();
    for path in ["d", "d/f", "d/l"] {
        a.fs().chown(path, 500, 33).unwrap();
    }
    in_step(&mut [&mut a, &mut b]);
    for path in ["d", "d/f", "d/l"] {
        assert_eq!(
            owner(&b, path),
            (500, 99),
            "{path}: by number without a name"
        );
        assert_eq!(owner(&a, path), (500, 33), "{path}");
    }
    let after = b.fs().stat("d/f").unwrap();
    assert_eq!(
        (after.ino, after.mode, after.mtime),
        (before.ino, before.mode, before.mtime)
    );
    a.fs().rename("d", "e").unwrap();
    in_step(&mut [&mut a, &mut b]);
    for path in ["e", "e/f", "e/l"] {
        assert_eq!(owner(&b, path), (500, 99), "{path}: after a move");
    }
}

#[test]
fn an_owner_that_cannot_be_set_bounces_back_as_a_change() {
    let mut a = machine(1, 0, &[(33, "www")]);
    let mut b = machine(2, 1000, &[(33, "www"), (1000, "user")]);
    put(&a, "f", "text");
    a.fs().mkdir_all("d").unwrap();
    for path in ["f", "d"] {
        a.fs().chown(path, 33, 33).unwrap();
    }
    let not_kept = |end: &End| {
        let all = end.problems.iter();
        all.filter(|(i, p)| (*i, p.code) == (1, Code::NotKept))
            .count()
    };
    let end = sync(&mut [&mut a, &mut b]);
    assert_eq!(not_kept(&end), 2, "{:?}", end.problems);
    assert_eq!(
        b.fs().read("f").unwrap(),
        b"text",
        "the content is there all the same"
    );
    for _ in 0..2 {
        let end = sync(&mut [&mut a, &mut b]);
        assert_eq!(end.summary.changes, 0, "it is tried again and again");
        assert_eq!(
            not_kept(&end),
            2,
            "it is not told any more: {:?}",
            end.problems
        );
    }
    put(&b, "f", "edited");
    let end = sync(&mut [&mut a, &mut b]);
    assert_eq!(end.summary.changes, 1, "asked for again");
    assert_eq!(a.fs().read("f").unwrap(), b"edited");
    assert_eq!(owner(&a, "f"), (33, 33));
    assert_eq!(owner(&b, "f"), (1000, 1000));
    b.fs().configure(|c| c.uid = 0);
    b.open();
    in_step(&mut [&mut a, &mut b]);
    assert_eq!((owner(&b, "f"), owner(&b, "d")), ((33, 33), (33, 33)));
    assert_eq!((owner(&a, "f"), owner(&a, "d")), ((33, 33), (33, 33)));
}

#[test]
fn an_attribute_of_a_user_is_lost_on_the_way() {
    let (mut a, mut b) = (machine(1, 1000, &[]), machine(2, 1000, &[]));
    put(&a, "f", "text");
    a.fs().mkdir_all("d").unwrap();
    for path in ["f", "d"] {
        a.fs().set_xattr(path, "user.a", Some(b"1")).unwrap();
    }
    in_step(&mut [&mut a, &mut b]);
    for path in ["f", "d"] {
        assert_eq!(b.fs().xattrs(path).unwrap(), one("user.a", b"1"), "{path}");
        b.fs().set_xattr(path, "user.a", None).unwrap();
        b.fs().set_xattr(path, "user.b", Some(b"2")).unwrap();
    }
    in_step(&mut [&mut a, &mut b]);
    for path in ["f", "d"] {
        assert_eq!(a.fs().xattrs(path).unwrap(), one("user.b", b"2"), "{path}");
    }
    put(&a, "f", "edited");
    in_step(&mut [&mut a, &mut b]);
    assert_eq!(b.fs().read("f").unwrap(), b"edited");
    assert_eq!(b.fs().xattrs("f").unwrap(), one("user.b", b"2"));
}

#[test]
fn more_attributes_than_are_carried_take_the_content_along() {
    let (mut a, mut b) = (machine(1, 1000, &[]), machine(2, 1000, &[]));
    put(&a, "f", "text");
    let long = vec![b'x'; XATTR_BYTES_MAX];
    a.fs().set_xattr("f", "user.a", Some(&long)).unwrap();
    for _ in 0..2 {
        let end = sync(&mut [&mut a, &mut b]);
        let codes: Vec<Code> = end.problems.iter().map(|(_, p)| p.code).collect();
        assert_eq!(codes, [Code::TooManyAttributes]);
    }
    assert_eq!(b.fs().read("f").unwrap(), b"text");
    a.fs().set_xattr("f", "user.a", Some(b"1")).unwrap();
    in_step(&mut [&mut a, &mut b]);
    assert_eq!(b.fs().xattrs("f").unwrap(), one("user.a", b"1"));
}

#[test]
fn whoever_does_not_carry_them_erases_them_by_an_edit_a_chmod_or_a_move() {
    let mut a = machine(1, 0, &[(33, "www")]);
    let mut b = machine(2, 0, &[(33, "www")]);
    let mut c = machine(3, 0, &[(33, "www")]);
    carry(&mut b, false, false);
    for name in ["edited", "chmod", "moved"] {
        put(&a, name, name);
        a.fs().chown(name, 33, 33).unwrap();
        a.fs().set_xattr(name, "user.a", Some(b"1")).unwrap();
    }
    in_step(&mut [&mut a, &mut b]);
    assert_eq!(owner(&b, "edited"), (0, 0), "it was not asked for here");
    put(&b, "edited", "again");
    b.fs().chmod("chmod", 0o600).unwrap();
    b.fs().rename("moved", "elsewhere").unwrap();
    b.fs().chown("chmod", 7, 7).unwrap();
    for _ in 0..2 {
        // C hears of everything from B alone.
        sync(&mut [&mut b, &mut c]);
        sync(&mut [&mut a, &mut b]);
    }
    for (sim, who) in [(&a, "a"), (&c, "c")] {
        assert_eq!(sim.fs().read("edited").unwrap(), b"again", "{who}");
        assert_eq!(sim.fs().stat("chmod").unwrap().mode & 0o777, 0o600, "{who}");
        for name in ["edited", "chmod", "elsewhere"] {
            assert_eq!(owner(sim, name), (33, 33), "{who}: {name}");
            let xattrs = sim.fs().xattrs(name).unwrap();
            assert_eq!(xattrs, one("user.a", b"1"), "{who}: {name}");
        }
    }
}

#[test]
fn what_was_there_before_it_was_asked_for_is_never_told() {
    let mut a = machine(1, 0, &[(33, "www")]);
    let mut b = machine(2, 0, &[(33, "www")]);
    for sim in [&mut a, &mut b] {
        carry(sim, false, false);
    }
    a.fs().mkdir_all("d").unwrap();
    put(&a, "d/f", "text");
    in_step(&mut [&mut a, &mut b]);
    for path in ["d", "d/f"] {
        a.fs().chown(path, 33, 33).unwrap();
    }
    in_step(&mut [&mut a, &mut b]);
    assert_eq!(owner(&b, "d/f"), (0, 0));
    carry(&mut a, true, false);
    carry(&mut b, true, false);
    in_step(&mut [&mut a, &mut b]);
    for path in ["d", "d/f"] {
        assert_eq!(
            (owner(&a, path), owner(&b, path)),
            ((33, 33), (33, 33)),
            "{path}"
        );
    }
    // Off and on again: what changed meanwhile is no reason to forget what is said.
    carry(&mut b, false, false);
    b.fs().chown("d/f", 7, 7).unwrap();
    in_step(&mut [&mut a, &mut b]);
    carry(&mut b, true, false);
    in_step(&mut [&mut a, &mut b]);
    assert_eq!((owner(&a, "d/f"), owner(&b, "d/f")), ((33, 33), (33, 33)));
}

#[test]
fn attributes_from_before_they_were_asked_for_are_erased_by_a_side_without_any() {
    for tagged_by_maker in [true, false] {
        let (mut a, mut b) = (machine(1, 1000, &[]), machine(2, 1000, &[]));
        for sim in [&mut a, &mut b] {
            carry(sim, false, false);
        }
        put(&a, "f", "text");
        in_step(&mut [&mut a, &mut b]);
        let tagged = if tagged_by_maker { &a } else { &b };
        tagged.fs().set_xattr("f", "user.a", Some(b"1")).unwrap();
        for sim in [&mut a, &mut b] {
            carry(sim, false, true);
        }
        in_step(&mut [&mut a, &mut b]);
        for sim in [&a, &b] {
            assert_eq!(sim.fs().xattrs("f").unwrap(), one("user.a", b"1"));
        }
    }
}

#[test]
fn an_edit_or_another_change_undoes_a_chown_of_the_same_moment() {
    let mut a = machine(1, 0, &[(33, "www")]);
    let mut b = machine(2, 0, &[(33, "www")]);
    for name in ["edited", "chmod", "tagged"] {
        put(&a, name, name);
    }
    in_step(&mut [&mut a, &mut b]);
    for name in ["edited", "chmod", "tagged"] {
        a.fs().chown(name, 33, 33).unwrap();
    }
    b.fs().advance(5_000_000_000);
    put(&b, "edited", "again");
    b.fs().chmod("chmod", 0o600).unwrap();
    b.fs().set_xattr("tagged", "user.a", Some(b"1")).unwrap();
    in_step(&mut [&mut a, &mut b]);
    for sim in [&a, &b] {
        assert_eq!(sim.fs().read("edited").unwrap(), b"again");
        assert_eq!(sim.fs().stat("chmod").unwrap().mode & 0o777, 0o600);
        assert_eq!(sim.fs().xattrs("tagged").unwrap(), one("user.a", b"1"));
        for name in ["edited", "chmod", "tagged"] {
            assert_eq!(owner(sim, name), (33, 33), "{name}");
        }
    }
}

/// The power fails at the `n`th call of a session; or only that call and all later ones fail, while the
/// process goes on for a while.
fn cut_off(a: &mut Sim, b: &mut Sim, n: u64, dies: bool) {
    let env = together(&[a, b]);
    let fs = b.fs();
    if dies {
        let (mut left, disk) = (n, b.disk.clone());
        fs.set_hook(Box::new(move |fs, _| {
            left -= 1;
            if left == 0 {
                fs.kill();
                disk.kill();
                resume_unwind(Box::new("the power is off"));
            }
        }));
    } else {
        fs.crash_after(n);
    }
    let a_side = Arc::new(a.replica.take().unwrap());
    let b_side = Arc::new(b.replica.take().unwrap());
    let replicas: Vec<Arc<dyn Replica>> = vec![a_side.clone(), b_side];
    let options = SessionOptions {
        once: true,
        ..SessionOptions::default()
    };
    drop(catch_unwind(AssertUnwindSafe(move || {
        let session = Session::start(env, replicas, options, Box::new(Silent));
        session.map(|mut session| session.run().map(drop))
    })));
    fs.clear_hook();
    a_side.close().unwrap();
    drop(a_side);
    a.open();
    b.power_cut(n);
}

#[test]
fn a_power_cut_turns_a_chown_back_everywhere() {
    for n in (1..60).flat_map(|n| [(n, true), (n, false)]) {
        let mut a = machine(1, 0, &[(33, "www")]);
        let mut b = machine(2, 0, &[(33, "www")]);
        put(&a, "f", "text");
        in_step(&mut [&mut a, &mut b]);
        a.fs().chown("f", 33, 33).unwrap();
        for name in ["user.a", "user.b"] {
            a.fs().set_xattr("f", name, Some(b"1")).unwrap();
        }
        let want = a.fs().xattrs("f").unwrap();
        cut_off(&mut a, &mut b, n.0, n.1);
        in_step(&mut [&mut a, &mut b]);
        for sim in [&a, &b] {
            assert_eq!(owner(sim, "f"), (33, 33), "{n:?}");
            assert_eq!(sim.fs().xattrs("f").unwrap(), want, "{n:?}");
        }
    }
}

#[test]
fn a_setuid_program_is_given_to_somebody_else() {
    let mut a = machine(1, 0, &[(33, "www")]);
    let mut b = machine(2, 0, &[(33, "www")]);
    put(&a, "f", "text");
    in_step(&mut [&mut a, &mut b]);
    b.fs().chmod("f", 0o4755).unwrap();
    in_step(&mut [&mut a, &mut b]);
    assert_eq!(a.fs().stat("f").unwrap().mode, 0o755, "never applied");
    assert_eq!(b.fs().stat("f").unwrap().mode, 0o4755);
    a.fs().chown("f", 33, 33).unwrap();
    a.fs().chmod("f", 0o711).unwrap();
    in_step(&mut [&mut a, &mut b]);
    let stat = b.fs().stat("f").unwrap();
    assert_eq!((stat.uid, stat.mode), (33, 0o711));
}

#[test]
fn a_session_that_does_not_carry_them_asks_for_them() {
    let (mut a, mut b) = (machine(1, 0, &[]), machine(2, 0, &[]));
    for sim in [&mut a, &mut b] {
        carry(sim, false, false);
        sim.fs().reset_calls();
    }
    a.fs().mkdir_all("d").unwrap();
    put(&a, "d/f", "text");
    a.fs().symlink("f", "d/l").unwrap();
    a.fs().chown("d/f", 33, 33).unwrap();
    in_step(&mut [&mut a, &mut b]);
    for sim in [&a, &b] {
        let calls = sim.fs().count_calls();
        let asked: Vec<_> = calls
            .keys()
            .filter(|op| op.contains("xattr") || op.contains("owner"))
            .collect();
        assert_eq!(asked, Vec::<&&str>::new());
        for path in ["d", "d/f", "d/l"] {
            let path = RelPath::new(path.as_bytes()).unwrap();
            let row = sim.replica().row(&path).unwrap().unwrap();
            assert_eq!(row.seen, None);
            assert_eq!(row.present().unwrap().attributes, None);
        }
    }
    assert_eq!(owner(&b, "d/f"), (0, 0));
}

#[test]
fn a_file_system_without_attributes_erases_those_of_the_others() {
    let (mut a, mut b) = (machine(1, 1000, &[]), machine(2, 1000, &[]));
    b.fs().configure(|c| c.xattrs = false);
    b.open();
    let notes = b.replica().describe().notes;
    assert!(
        notes
            .iter()
            .any(|n| n.contains("keeps no extended attributes")),
        "{notes:?}"
    );
    put(&a, "f", "text");
    a.fs().set_xattr("f", "user.a", Some(b"1")).unwrap();
    in_step(&mut [&mut a, &mut b]);
    put(&b, "f", "edited");
    in_step(&mut [&mut a, &mut b]);
    assert_eq!(a.fs().read("f").unwrap(), b"edited");
    assert_eq!(a.fs().xattrs("f").unwrap(), one("user.a", b"1"));
}
