//! How many bytes cross a link when a big file changes a little; counted by the link itself, both ways.
#![cfg(feature = "wire")]
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed assumption is a failed test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use instep_chunk::content_id;
use instep_chunk::manifest::Tree;
use instep_core::attributes::Carried;
use instep_core::id::{ActorId, ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_engine::report::{Event, Monitor};
use instep_engine::{Handle, Session, SessionOptions};
use instep_remote::observed::Introduction;
use instep_remote::{Observed, Published, wired};
use instep_replica::env::StepEnv;
use instep_replica::memory::MemoryReplica;
use instep_replica::{Capabilities, Replica};
use instep_wire::link::Link;
use instep_wire::message::{Hello, Message};

const SHARE: ShareId = ShareId([7; 16]);
const SOON: Duration = Duration::from_mins(2);

struct Side {
    memory: Arc<MemoryReplica>,
    published: Arc<Published>,
    observed: Arc<Observed>,
}

fn side(one: &Arc<MemoryReplica>, other: &Arc<MemoryReplica>) -> Side {
    let introduction = Introduction {
        id: other.id(),
        actor: other.actor(),
        share: SHARE,
        description: other.describe(),
        capabilities: Capabilities {
            carried: Carried::default(),
            ..other.capabilities().clone()
        },
    };
    let published = Arc::new(Published::new(one.clone()));
    let ours = published.clone() as Arc<dyn Replica>;
    Side {
        memory: one.clone(),
        observed: Arc::new(Observed::new(introduction, ours)),
        published,
    }
}

/// Counts problems that a person would be shown.
struct Problems(Arc<AtomicU64>);

impl Monitor for Problems {
    fn event(&mut self, event: Event) {
        if matches!(event, Event::Problem { open: true, .. }) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn run(side: &Side, env: &Arc<StepEnv>, problems: &Arc<AtomicU64>) -> Handle {
    let (send, receive) = channel();
    let problems = Box::new(Problems(problems.clone()));
    let (env, replicas) = (
        env.clone(),
        vec![
            side.published.clone() as Arc<dyn Replica>,
            side.observed.clone(),
        ],
    );
    std::thread::spawn(move || {
        let options = SessionOptions::default();
        let mut session = Session::start(env, replicas, options, problems).unwrap();
        send.send(session.handle()).unwrap();
        session.run().unwrap();
    });
    receive.recv().unwrap()
}

/// Two replicas that are kept in step over a link.
struct Two {
    a: Side,
    b: Side,
    links: Vec<Arc<Link>>,
    runs: Vec<Handle>,
    problems: Arc<AtomicU64>,
}

fn greeted() -> (Arc<Link>, Arc<Link>) {
    let (one, other) = Link::pair().unwrap();
    let hello = || Hello::new(SHARE, ReplicaId([2; 16]), ActorId([3; 8]));
    for link in [&one, &other] {
        link.send(&Message::Hello(Box::new(hello()))).unwrap();
    }
    for link in [&one, &other] {
        assert!(link.recv(SOON).unwrap().is_some());
    }
    (Arc::new(one), Arc::new(other))
}

impl Two {
    fn new() -> Self {
        let env = Arc::new(StepEnv::default());
        let memory = |label: &str| Arc::new(MemoryReplica::new(label, SHARE, env.clone()));
        let (a, b) = (memory("A"), memory("B"));
        let (a, b) = (side(&a, &b), side(&b, &a));
        let problems = Arc::default();
        let runs = vec![run(&a, &env, &problems), run(&b, &env, &problems)];
        let mut two = Self {
            a,
            b,
            links: Vec::new(),
            runs,
            problems,
        };
        two.connect();
        two
    }

    fn connect(&mut self) {
        let (one, other) = greeted();
        for (link, side) in [(&one, &self.a), (&other, &self.b)] {
            let (published, observed) = (side.published.clone(), side.observed.clone());
            let link = link.clone();
            std::thread::spawn(move || wired::hold(&link, &published, &observed));
        }
        self.links = vec![one, other];
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = RelPath::new(path.as_bytes()).unwrap();
        self.a.memory.user_write(&path, bytes).unwrap();
    }

    fn shows(&self, path: &str, bytes: &[u8]) -> bool {
        let path = RelPath::new(path.as_bytes()).unwrap();
        let tree = self.b.memory.tree();
        tree.iter()
            .any(|(at, object)| *at == path && object.bytes() == bytes)
    }

    /// Writes it and waits until the other one shows it; how many bytes that took, both ways.
    fn bytes_until(&self, path: &str, bytes: &[u8]) -> u64 {
        let before = self.traffic();
        self.write(path, bytes);
        wait_for(|| self.shows(path, bytes));
        self.traffic() - before
    }

    fn traffic(&self) -> u64 {
        let (read, written) = self.links[0].traffic();
        read + written
    }
}

fn wait_for(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "it does not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        self.runs.iter().for_each(Handle::stop);
        self.links.iter().for_each(|link| link.close("done"));
    }
}

/// Bytes that nothing makes shorter, the same everywhere.
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()
    };
    let words = std::iter::repeat_with(|| next()[..4].to_vec());
    words.take(count / 4).flatten().collect()
}

const MIB: usize = 1024 * 1024;

#[test]
fn a_byte_that_changes_in_a_big_file_costs_more_than_a_few_pages() {
    let two = Two::new();
    let mut bytes = noise(64 * MIB, 1);
    let whole = two.bytes_until("big", &bytes);
    assert!(whole > 64 * MIB as u64, "{whole}");
    bytes[32 * MIB] ^= 1;
    let overwritten = two.bytes_until("big", &bytes);
    bytes.insert(0, 7);
    let inserted = two.bytes_until("big", &bytes);
    bytes.push(9);
    let appended = two.bytes_until("big", &bytes);
    bytes.truncate(50 * MIB);
    let truncated = two.bytes_until("big", &bytes);
    let all = format!("{overwritten} {inserted} {appended} {truncated}");
    assert!(overwritten <= 8 * 1024, "{all}");
    assert!(inserted <= 2 * overwritten, "{all}");
    assert!(appended <= 8 * 1024 && truncated <= 8 * 1024, "{all}");
}

#[test]
fn a_transfer_that_was_cut_off_begins_anew_when_the_machines_meet_again() {
    let mut two = Two::new();
    let mut old = noise(48 * MIB, 2);
    two.write("big", &old);
    wait_for(|| two.traffic() > 16 * MIB as u64);
    two.links[0].close("cut");
    wait_for(|| two.a.observed.guard().is_err() && two.b.observed.guard().is_err());
    let first = two.traffic();
    assert!(first < 40 * MIB as u64, "{first}: it was not cut off");
    two.connect();
    wait_for(|| two.shows("big", &old));
    // What was on its way when it was cut off is lost.
    let lost = first + two.traffic() - old.len() as u64;
    assert!(lost < 12 * MIB as u64, "{lost} bytes twice");
    let before = two.traffic();
    old[5] ^= 1;
    two.write("big", &old);
    wait_for(|| two.shows("big", &old));
    assert!(two.traffic() - before < 16 * 1024);
}

#[test]
fn a_manifest_that_lies_ends_in_wrong_bytes_or_in_an_error() {
    let two = Two::new();
    let old = noise(3 * MIB, 3);
    two.bytes_until("file", &old);
    let mut new = old.clone();
    new[MIB] ^= 1;
    // It says that nothing changed.
    let tree = Tree::read(&mut &old[..], &mut |_| true).unwrap();
    let manifests = two.a.published.manifests();
    manifests.keep(content_id(&new), Arc::new(tree));
    let bytes = two.bytes_until("file", &new);
    assert!(bytes > 3 * MIB as u64, "{bytes}: not as a whole");
    assert_eq!(two.problems.load(Ordering::SeqCst), 0);
}

#[test]
fn a_file_that_was_replaced_by_another_one_costs_more_than_the_whole() {
    let two = Two::new();
    two.bytes_until("file", &noise(2 * MIB, 4));
    let bytes = two.bytes_until("file", &noise(2 * MIB, 5));
    assert!(bytes < 2 * MIB as u64 + 64 * 1024, "{bytes}");
}

/// Numbers that decide, the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }

    /// What a program may make of a file.
    fn edit(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let end = (at + self.below(300_000)).min(bytes.len());
        match self.below(7) {
            0 => bytes[at] ^= 1,
            1 => {
                let some = noise(4 + self.below(50_000), at as u64);
                bytes.splice(at..at, some);
            }
            2 => {
                bytes.drain(at..end);
            }
            3 => bytes.extend(noise(4 + self.below(400_000), at as u64)),
            4 => {
                let moved: Vec<u8> = bytes.drain(at..end).collect();
                let to = self.below(bytes.len());
                bytes.splice(to..to, moved);
            }
            5 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => bytes[at..end].fill(0),
        }
    }
}

#[test]
fn an_edit_of_some_kind_arrives_as_something_else() {
    let two = Two::new();
    let mut dice = Dice(11);
    let mut bytes = noise(2 * MIB, 6);
    two.bytes_until("file", &bytes);
    let (mut sent, mut whole) = (0, 0);
    for _ in 0..30 {
        for _ in 0..=dice.below(3) {
            dice.edit(&mut bytes);
        }
        sent += two.bytes_until("file", &bytes);
        whole += bytes.len() as u64;
    }
    assert!(sent < whole / 4, "{sent} of {whole}");
    assert_eq!(two.problems.load(Ordering::SeqCst), 0);
}

#[test]
fn a_file_that_is_there_twice_comes_twice() {
    let two = Two::new();
    let bytes = noise(2 * MIB, 7);
    two.bytes_until("one", &bytes);
    let again = two.bytes_until("d/two", &bytes);
    let path = RelPath::new(b"one").unwrap();
    two.a.memory.user_remove(&path).unwrap();
    wait_for(|| !two.shows("one", &bytes));
    let after = two.bytes_until("three", &bytes);
    assert!(again < 4096 && after < 4096, "{again} {after}");
}
