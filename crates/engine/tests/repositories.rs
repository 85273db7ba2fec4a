//! A `.git` that two users changed at once is never a mixture of both.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::sync::Arc;

use instep_core::id::ShareId;
use instep_core::path::RelPath;
use instep_engine::report::Silent;
use instep_engine::{Session, SessionOptions};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::MemoryReplica;
use instep_replica::{Book, Replica};

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

fn sync(env: &Arc<StepEnv>, replicas: &[Arc<MemoryReplica>]) {
    let all = replicas
        .iter()
        .map(|r| r.clone() as Arc<dyn Replica>)
        .collect();
    let options = SessionOptions {
        once: true,
        ..SessionOptions::default()
    };
    let env: Arc<dyn Env> = env.clone();
    Session::start(env, all, options, Box::new(Silent))
        .unwrap()
        .run()
        .unwrap();
}

/// Three replicas with one repository.
fn repository() -> (Arc<StepEnv>, Vec<Arc<MemoryReplica>>) {
    let env = Arc::new(StepEnv::default());
    let open = |name| {
        Arc::new(MemoryReplica::new(
            name,
            ShareId([1; 16]),
            env.clone() as Arc<dyn Env>,
        ))
    };
    let replicas: Vec<_> = ["A", "B", "C"].map(open).into();
    for name in ["HEAD", "index", "refs/heads/main", "config"] {
        replicas[0]
            .user_write(&p(&format!("r/.git/{name}")), b"base")
            .unwrap();
    }
    sync(&env, &replicas);
    (env, replicas)
}

fn contents(replica: &MemoryReplica, names: &[&str]) -> Vec<String> {
    let read = |name: &&str| match replica.user_read(&p(&format!("r/.git/{name}"))) {
        Ok(bytes) => String::from_utf8(bytes).unwrap(),
        Err(_) => "-".to_owned(),
    };
    names.iter().map(read).collect()
}

#[test]
fn a_repository_is_mixed_from_two() {
    let (env, replicas) = repository();
    let write = |i: usize, name: &str, text: &str| {
        let path = p(&format!("r/.git/{name}"));
        replicas[i].user_write(&path, text.as_bytes()).unwrap();
        env.advance(1_000_000_000);
    };
    // Each overwrites what the other has not touched, and both the index, in turns.
    write(0, "HEAD", "A");
    write(1, "index", "B");
    write(1, "MERGE_HEAD", "B");
    write(1, "objects/00/b", "object");
    write(0, "index", "A");
    write(1, "config", "B");
    write(0, "refs/heads/main", "A");
    sync(&env, &replicas);
    let names = [
        "HEAD",
        "index",
        "refs/heads/main",
        "config",
        "MERGE_HEAD",
        "objects/00/b",
    ];
    for replica in &replicas {
        assert_eq!(
            contents(replica, &names),
            ["A", "A", "A", "base", "-", "object"]
        );
    }
    let noted = replicas[0].records(Book::Conflicts).unwrap();
    let of = |name: &str| noted.iter().filter(|(_, body)| body.contains(name)).count();
    assert_eq!(
        (of("r/.git/index"), of("r/.git/config"), of("HEAD\"")),
        (1, 1, 0),
        "{noted:?}"
    );
    sync(&env, &replicas);
    assert_eq!(
        contents(&replicas[1], &names),
        ["A", "A", "A", "base", "-", "object"]
    );
}

#[test]
fn a_repository_that_one_user_changed_is_a_conflict() {
    let (env, replicas) = repository();
    replicas[1].user_write(&p("r/.git/HEAD"), b"B").unwrap();
    replicas[0].user_write(&p("r/a"), b"no part of it").unwrap();
    sync(&env, &replicas);
    for replica in &replicas {
        assert_eq!(contents(replica, &["HEAD", "index"]), ["B", "base"]);
        assert!(replica.records(Book::Conflicts).unwrap().is_empty());
    }
}
