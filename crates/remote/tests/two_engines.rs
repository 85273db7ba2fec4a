//! Two engines, each with its own replica, that see each other through a line.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed assumption is a failed test"
)]

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use instep_core::attributes::Carried;
use instep_core::id::{ContentId, ShareId};
use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_engine::report::Silent;
use instep_engine::{Handle, Session, SessionOptions};
use instep_remote::conversation::{Conversation, Line};
use instep_remote::observed::{Bringer, Introduction};
use instep_remote::{Observed, Published, Say};
use instep_replica::env::StepEnv;
use instep_replica::memory::MemoryReplica;
use instep_replica::{Capabilities, Content, Description, Error, ErrorKind, Replica, Result};

const SHARE: ShareId = ShareId([7; 16]);

struct Half {
    out: Mutex<Option<Sender<Say>>>,
    into: Mutex<Receiver<Say>>,
    said: Mutex<Vec<Say>>,
}

fn gone() -> Error {
    Error::new(ErrorKind::Gone, "the line is cut")
}

impl Line for Half {
    fn say(&self, what: Say) -> Result<()> {
        self.said.lock().unwrap().push(what.clone());
        let out = self.out.lock().unwrap();
        let sent = out.as_ref().map(|out| out.send(what));
        sent.ok_or_else(gone)?.map_err(|_| gone())
    }

    fn hear(&self, patience: Duration) -> Result<Option<Say>> {
        match self.into.lock().unwrap().recv_timeout(patience) {
            Ok(said) => Ok(Some(said)),
            Err(RecvTimeoutError::Timeout) if self.out.lock().unwrap().is_some() => Ok(None),
            Err(_) => Err(gone()),
        }
    }

    fn end(&self, _: &str) {
        *self.out.lock().unwrap() = None;
    }
}

fn line() -> (Arc<Half>, Arc<Half>) {
    let ((a, from_a), (b, from_b)) = (channel(), channel());
    let half = |out, into| {
        Arc::new(Half {
            out: Mutex::new(Some(out)),
            into: Mutex::new(into),
            said: Mutex::default(),
        })
    };
    (half(a, from_b), half(b, from_a))
}

/// Brings contents straight from the other replica.
struct Direct(Arc<Published>);

impl Bringer for Direct {
    fn open(&self, path: &RelPath, content: ContentId, _: u64) -> Result<Option<Box<dyn Content>>> {
        self.0.open(path, content)
    }
}

#[derive(Clone)]
struct Side {
    memory: Arc<MemoryReplica>,
    published: Arc<Published>,
    observed: Arc<Observed>,
}

fn meet(one: &Arc<MemoryReplica>, other: &Arc<MemoryReplica>) -> Side {
    beside(&Arc::new(Published::new(one.clone())), one, other)
}

fn seen_as(one: &Arc<MemoryReplica>, other: &Arc<MemoryReplica>, role: Role) -> Side {
    in_role(&Arc::new(Published::new(one.clone())), one, other, role)
}

/// The other as it is seen beside one.
fn beside(
    published: &Arc<Published>,
    one: &Arc<MemoryReplica>,
    other: &Arc<MemoryReplica>,
) -> Side {
    in_role(published, one, other, Role::Both)
}

fn in_role(
    published: &Arc<Published>,
    one: &Arc<MemoryReplica>,
    other: &Arc<MemoryReplica>,
    role: Role,
) -> Side {
    let introduction = Introduction {
        id: other.id(),
        actor: other.actor(),
        share: SHARE,
        description: Description {
            role,
            ..other.describe()
        },
        capabilities: Capabilities {
            carried: Carried::default(),
            ..other.capabilities().clone()
        },
    };
    let published = published.clone();
    let ours = published.clone() as Arc<dyn Replica>;
    Side {
        memory: one.clone(),
        observed: Arc::new(Observed::new(introduction, ours)),
        published,
    }
}

fn converse(one: &Side, other: &Side) -> (Arc<Half>, Arc<Half>) {
    let (a, b) = line();
    for (line, side, far) in [(&a, one, other), (&b, other, one)] {
        let conversation = Conversation {
            line: line.clone(),
            local: side.published.clone(),
            observed: side.observed.clone(),
            bringer: Arc::new(Direct(far.published.clone())),
        };
        std::thread::spawn(move || conversation.hold());
    }
    (a, b)
}

fn run(side: &Side, env: &Arc<StepEnv>) -> Handle {
    begin(vec![side.published.clone(), side.observed.clone()], env)
}

fn begin(replicas: Vec<Arc<dyn Replica>>, env: &Arc<StepEnv>) -> Handle {
    begin_with(replicas, env, SessionOptions::default())
}

fn begin_with(
    replicas: Vec<Arc<dyn Replica>>,
    env: &Arc<StepEnv>,
    options: SessionOptions,
) -> Handle {
    let (send, receive) = channel();
    let env = env.clone();
    std::thread::spawn(move || {
        let mut session = Session::start(env, replicas, options, Box::new(Silent)).unwrap();
        send.send(session.handle()).unwrap();
        session.run().unwrap();
    });
    receive.recv().unwrap()
}

fn p(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn files(replica: &MemoryReplica) -> Vec<(String, Vec<u8>)> {
    let tree = replica.tree();
    let files = tree.iter().filter(|(_, o)| !o.is_dir());
    files
        .map(|(p, o)| (p.to_string(), o.bytes().to_vec()))
        .collect()
}

/// Waits until both have these files and no others.
fn equal(one: &Side, other: &Side, wanted: &[(&str, &str)]) {
    all_equal(&[&one.memory, &other.memory], wanted);
}

fn all_equal(all: &[&MemoryReplica], wanted: &[(&str, &str)]) {
    let began = Instant::now();
    let wanted: Vec<(String, Vec<u8>)> = wanted
        .iter()
        .map(|(n, t)| ((*n).to_owned(), t.as_bytes().to_vec()))
        .collect();
    loop {
        let trees: Vec<_> = all.iter().map(|replica| files(replica)).collect();
        if trees.iter().all(|tree| *tree == wanted) {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "not equal: {trees:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn two() -> (Side, Side, Arc<StepEnv>) {
    let env = Arc::new(StepEnv::default());
    let memory = |label: &str| Arc::new(MemoryReplica::new(label, SHARE, env.clone()));
    let (a, b) = (memory("A"), memory("B"));
    (meet(&a, &b), meet(&b, &a), env)
}

#[test]
fn what_is_written_on_either_side_arrives_on_the_other_and_does_not_come_back() {
    let (a, b, env) = two();
    a.memory.user_write(&p("d/one"), b"1").unwrap();
    b.memory.user_write(&p("two"), b"22").unwrap();
    let (line_a, line_b) = converse(&a, &b);
    let (run_a, run_b) = (run(&a, &env), run(&b, &env));
    equal(&a, &b, &[("d/one", "1"), ("two", "22")]);
    a.memory.user_write(&p("three"), b"333").unwrap();
    equal(&a, &b, &[("d/one", "1"), ("three", "333"), ("two", "22")]);
    b.memory.user_remove(&p("two")).unwrap();
    b.memory.user_write(&p("three"), b"4444").unwrap();
    equal(&a, &b, &[("d/one", "1"), ("three", "4444")]);
    let inline = |line: &Half| {
        let said = line.said.lock().unwrap();
        let rows = said.iter().flat_map(|s| match s {
            Say::Rows(rows) => rows.clone(),
            _ => Vec::new(),
        });
        rows.filter(|r| r.inline.is_some())
            .map(|r| (r.path.to_string(), r.inline.unwrap()))
            .collect::<Vec<_>>()
    };
    let (of_a, of_b) = (inline(&line_a), inline(&line_b));
    assert!(
        of_a.contains(&("three".to_owned(), b"333".to_vec())),
        "it comes with its row"
    );
    assert!(
        !of_b.contains(&("three".to_owned(), b"333".to_vec())),
        "it does not come back"
    );
    run_a.stop();
    run_b.stop();
}

#[test]
fn what_happened_while_the_line_was_cut_is_merged_when_it_is_back() {
    let (a, b, env) = two();
    a.memory.user_write(&p("same"), b"0").unwrap();
    let (line, _other) = converse(&a, &b);
    let (run_a, run_b) = (run(&a, &env), run(&b, &env));
    equal(&a, &b, &[("same", "0")]);
    line.end("cut");
    a.memory.user_write(&p("of a"), b"a").unwrap();
    b.memory.user_write(&p("of b"), b"b").unwrap();
    b.memory.user_remove(&p("same")).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(a.observed.guard().is_err() && b.observed.guard().is_err());
    let lines = converse(&a, &b);
    equal(&a, &b, &[("of a", "a"), ("of b", "b")]);
    drop(lines);
    run_a.stop();
    run_b.stop();
}

#[test]
fn what_one_client_of_a_hub_writes_arrives_at_all_others_whenever_they_come() {
    let env = Arc::new(StepEnv::default());
    let memory = |label: &str| Arc::new(MemoryReplica::new(label, SHARE, env.clone()));
    let hub = memory("hub");
    let published = Arc::new(Published::new(hub.clone()));
    let run_hub = begin(vec![published.clone()], &env);
    let mut clients = Vec::new();
    let mut lines = Vec::new();
    let mut handles = Vec::new();
    for label in ["A", "B", "C"] {
        let client = memory(label);
        client.user_write(&p(label), label.as_bytes()).unwrap();
        let (here, there) = (meet(&client, &hub), beside(&published, &hub, &client));
        run_hub.meet(there.observed.clone());
        lines.push(converse(&here, &there));
        handles.push(run(&here, &env));
        clients.push(client);
    }
    let all: Vec<&MemoryReplica> = clients.iter().chain([&hub]).map(Arc::as_ref).collect();
    all_equal(&all, &[("A", "A"), ("B", "B"), ("C", "C")]);
    clients[1].user_write(&p("d/new"), b"from B").unwrap();
    clients[2].user_remove(&p("A")).unwrap();
    all_equal(&all, &[("B", "B"), ("C", "C"), ("d/new", "from B")]);
    handles.iter().chain([&run_hub]).for_each(Handle::stop);
}

#[test]
fn a_mirror_copies_one_way_and_what_only_the_target_has_goes() {
    let env = Arc::new(StepEnv::default());
    let memory = |label: &str, role| {
        let made = MemoryReplica::new(label, SHARE, env.clone());
        Arc::new(made.with_role(role))
    };
    let (source, target) = (memory("A", Role::Source), memory("B", Role::Target));
    source.user_write(&p("d/one"), b"1").unwrap();
    target.user_write(&p("extra"), b"x").unwrap();
    let here = seen_as(&source, &target, Role::Target);
    let there = seen_as(&target, &source, Role::Source);
    let _lines = converse(&here, &there);
    let mirror = || SessionOptions {
        mirror: true,
        ..SessionOptions::default()
    };
    let a = begin_with(
        vec![here.published.clone(), here.observed.clone()],
        &env,
        mirror(),
    );
    let b = begin_with(
        vec![there.observed.clone(), there.published.clone()],
        &env,
        mirror(),
    );
    all_equal(&[&source, &target], &[("d/one", "1")]);
    source.user_write(&p("two"), b"2").unwrap();
    source.user_remove(&p("d/one")).unwrap();
    all_equal(&[&source, &target], &[("two", "2")]);
    // What happens at the target changes nothing at the source, and neither waits for the other because of it.
    target.user_write(&p("two"), b"changed").unwrap();
    target.user_write(&p("d/more"), b"x").unwrap();
    all_equal(&[&source, &target], &[("two", "2")]);
    let at_rest = |side: &Side| side.observed.is_at_rest() && side.observed.pending() == 0;
    let began = Instant::now();
    while !at_rest(&here) || !at_rest(&there) {
        assert!(began.elapsed() < Duration::from_secs(20), "still waiting");
        std::thread::sleep(Duration::from_millis(5));
    }
    a.stop();
    b.stop();
}
