//! How many bytes cross a link when a big file changes a little; counted by the link itself, both ways.
#![cfg(feature = "wire")]
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed assumption is a failed test"
)]

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use instep_core::attributes::Carried;
use instep_core::id::{ActorId, ReplicaId, ShareId};
use instep_core::path::RelPath;
use instep_engine::report::Silent;
use instep_engine::{Handle, Session, SessionOptions};
use instep_remote::observed::Introduction;
use instep_remote::{Observed, Published, wired};
use instep_replica::env::StepEnv;
use instep_replica::memory::MemoryReplica;
use instep_replica::{Capabilities, Replica};
use instep_wire::link::Link;
use instep_wire::message::{Hello, Message};

const SHARE: ShareId = ShareId([7; 16]);
const SOON: Duration = Duration::from_secs(120);

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

fn run(side: &Side, env: &Arc<StepEnv>) -> Handle {
    let (send, receive) = channel();
    let (env, replicas) = (
        env.clone(),
        vec![
            side.published.clone() as Arc<dyn Replica>,
            side.observed.clone(),
        ],
    );
    std::thread::spawn(move || {
        let options = SessionOptions::default();
        let mut session = Session::start(env, replicas, options, Box::new(Silent)).unwrap();
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
        let runs = vec![run(&a, &env), run(&b, &env)];
        let mut two = Self {
            a,
            b,
            links: Vec::new(),
            runs,
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

    /// Waits until the other one shows it; how many bytes that took, both ways.
    fn bytes_until(&self, path: &str, bytes: &[u8]) -> u64 {
        let began = Instant::now();
        let before = self.traffic();
        self.write(path, bytes);
        while !self.shows(path, bytes) {
            assert!(began.elapsed() < SOON, "it does not arrive");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.traffic() - before
    }

    fn traffic(&self) -> u64 {
        let (read, written) = self.links[0].traffic();
        read + written
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
    assert!(overwritten <= 16 * 1024, "{all}");
    assert!(inserted <= 2 * overwritten.max(8 * 1024), "{all}");
    assert!(appended <= 16 * 1024 && truncated <= 16 * 1024, "{all}");
}
