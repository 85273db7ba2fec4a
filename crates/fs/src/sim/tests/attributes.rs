//! Owner, group and extended attributes.

use std::collections::BTreeMap;

use instep_core::attributes::Xattrs;

use super::*;
use crate::Party;

fn one(name: &str, value: &[u8]) -> Xattrs {
    let all = BTreeMap::from([(name.as_bytes().into(), value.into())]);
    Xattrs::new(all).unwrap()
}

fn owner(fs: &SimFs, path: &str) -> (u32, u32) {
    let stat = fs.stat(path).unwrap();
    (stat.uid, stat.gid)
}

fn machine_of(uid: u32) -> (SimFs, SimDir) {
    let fs = SimFs::new(SimConfig {
        uid,
        ..SimConfig::adversarial(1)
    });
    let root = fs.sim_root();
    (fs, root)
}

#[test]
fn only_the_super_user_gives_things_away() {
    let (_fs, root) = machine_of(1000);
    let file = put(&root, "f", b"x");
    let refused = root.set_owner(n("f"), Some(1), None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert_eq!(
        file.set_owner(None, Some(1)).unwrap_err().kind(),
        ErrorKind::Denied
    );
    root.set_owner(n("f"), Some(1000), Some(1000)).unwrap();
    let (fs, root) = machine_of(0);
    put(&root, "f", b"x").set_owner(Some(5), None).unwrap();
    root.make_link(n("l"), b"f").unwrap();
    root.set_owner(n("l"), None, Some(6)).unwrap();
    assert_eq!(owner(&fs, "f"), (5, 1000));
    assert_eq!(owner(&fs, "l"), (0, 6));
}

#[test]
fn a_file_that_changes_hands_keeps_no_setuid() {
    let (_fs, root) = machine_of(0);
    let file = put(&root, "f", b"x");
    file.set_mode(0o6755).unwrap();
    let before = file.stat().unwrap().ctime;
    file.set_owner(Some(5), None).unwrap();
    let stat = file.stat().unwrap();
    assert_eq!((stat.mode, stat.uid), (0o755, 5));
    assert_ne!(stat.ctime, before);
}

#[test]
fn attributes_come_and_go_and_are_noticed_by_the_change_time() {
    let (fs, root) = machine();
    let file = put(&root, "f", b"x");
    let before = file.stat().unwrap();
    file.set_xattr(b"user.a", Some(b"1")).unwrap();
    let after = file.stat().unwrap();
    assert_eq!(after.mtime, before.mtime);
    assert_ne!(after.ctime, before.ctime);
    assert_eq!(file.xattrs().unwrap(), Some(one("user.a", b"1")));
    let refused = file.set_xattr(b"security.capability", Some(b"1"));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
    root.make_dir(n("d"), 0o755).unwrap();
    let dir = root.open_dir(n("d")).unwrap();
    dir.set_xattr_self(b"user.b", Some(b"2")).unwrap();
    assert_eq!(fs.xattrs("d").unwrap(), one("user.b", b"2"));
    dir.set_xattr_self(b"user.b", None).unwrap();
    assert_eq!(dir.xattrs_self().unwrap(), Some(Xattrs::default()));
}

#[test]
fn what_was_synced_keeps_its_attributes_through_a_power_cut() {
    for cfg in all_models() {
        let fs = SimFs::new(SimConfig { uid: 0, ..cfg });
        let root = fs.sim_root();
        let file = put(&root, "f", b"x");
        file.set_xattr(b"user.a", Some(b"1")).unwrap();
        file.set_owner(Some(5), Some(6)).unwrap();
        file.sync_data().unwrap();
        root.sync().unwrap();
        for seed in 0..20 {
            let after = fs.image(seed);
            assert_eq!(owner(&after, "f"), (5, 6));
            assert_eq!(after.xattrs("f").unwrap(), one("user.a", b"1"));
        }
    }
}

#[test]
fn each_machine_has_its_own_accounts() {
    let accounts = BTreeMap::from([(7, "ann".to_owned())]);
    let fs = SimFs::new(SimConfig {
        accounts,
        ..SimConfig::adversarial(1)
    });
    let root = fs.sim_root();
    assert_eq!(root.account_id(Party::User, b"ann"), Some(7));
    assert_eq!(root.account_name(Party::Group, 7), Some(b"ann".to_vec()));
    assert_eq!(root.account_id(Party::User, b"root"), None);
    assert_eq!(machine().1.account_id(Party::User, b"root"), Some(0));
}
