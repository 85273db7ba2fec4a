//! Where content comes from: a source whose bytes are not what it says is not believed, others are asked, and
//! when there is none, that is a problem with a name.

use instep_chunk::content_id;
use instep_core::id::ContentId;
use instep_core::plan::{Action, Code, Outcome};
use instep_fs::sim::{Save, SimConfig};
use instep_replica::Replica;
use instep_replica::conformance::User as _;
use instep_replica::content::{Bytes, Content, Sources};

use super::acts::{incoming, observe, row};
use crate::support::p;
use crate::support::sim::Sim;

const GOOD: &[u8] = b"the bytes of this version";
const BAD: &[u8] = b"as many bytes of another.";

/// Several that say that they have the content.
struct Several(Vec<Vec<u8>>);

impl Sources for Several {
    fn open(&self, action: &Action, content: ContentId) -> Option<Box<dyn Content>> {
        self.open_other(action, content, 0)
    }

    fn open_other(&self, _: &Action, _: ContentId, tried: usize) -> Option<Box<dyn Content>> {
        let bytes = self.0.get(tried)?;
        Some(Box::new(Bytes(bytes.clone())))
    }
}

/// A machine without files that have no name has to go another way.
fn machines() -> [Sim; 2] {
    [true, false].map(|unnamed_files| {
        Sim::new(SimConfig {
            unnamed_files,
            ..SimConfig::ext4(1)
        })
    })
}

#[test]
fn one_damaged_source_keeps_a_file_from_coming() {
    for size in [30, 100_000] {
        let good = vec![b'g'; size];
        for sim in machines() {
            let action = incoming(sim.replica(), &p("f"), Some(&good), 1);
            let others = [vec![b'b'; size], vec![b'g'; size - 1], good.clone()];
            let sources = Several(others.to_vec());
            let outcomes = sim.replica().apply(&[action], &sources).unwrap();
            assert_eq!(outcomes, [Outcome::Done]);
            assert_eq!(sim.read(&p("f")).unwrap(), good);
        }
    }
}

#[test]
fn a_damaged_source_is_tried_for_ever_without_a_word() {
    for sim in machines() {
        let action = incoming(sim.replica(), &p("f"), Some(GOOD), 1);
        sim.fs().reset_calls();
        let outcomes = sim
            .replica()
            .apply(&[action], &Several(vec![BAD.to_vec()]))
            .unwrap();
        let calls = sim.fs().count_calls();
        let makes = ["create_file", "create_unnamed"];
        assert!(
            makes.iter().all(|op| !calls.contains_key(op)),
            "each try writes: {calls:?}"
        );
        let [Outcome::Blocked(problem)] = &outcomes[..] else {
            panic!("{outcomes:?}");
        };
        assert_eq!(problem.code, Code::ContentMissing);
        assert!(sim.tree().unwrap().is_empty());
        let staged = sim.replica().stage(
            &p("f"),
            instep_chunk::content_id(GOOD),
            &mut Bytes(BAD.to_vec()),
        );
        assert!(matches!(staged.unwrap(), Outcome::Blocked(p) if p.code == Code::ContentMissing));
    }
}

/// A file with holes is looked at, and given to another, while nobody can say where its holes are.
#[test]
fn what_follows_a_hole_that_nobody_can_find_counts_as_zeros() {
    let sim = Sim::new(SimConfig::ext4(1));
    let fs = sim.fs();
    let file = {
        fs.write_file("f", b"", Save::InPlace).unwrap();
        fs.user_open_write("f").unwrap()
    };
    fs.user_write(&file, 64 * 1024, GOOD).unwrap();
    fs.user_close(file).unwrap();
    fs.inject("next_data", 1000, 5);
    observe(sim.replica(), &|ms| {
        fs.advance(ms.cast_signed() * 1_000_000);
    });
    let bytes = fs.read("f").unwrap();
    assert!(bytes.ends_with(GOOD));
    let seen = row(sim.replica(), &p("f")).present().unwrap().content;
    assert_eq!(seen, content_id(&bytes));
    let mut content = sim.replica().open(&p("f"), seen).unwrap().unwrap();
    let (from, to) = content.next_data(0).unwrap();
    assert!(
        from <= 64 * 1024 && to == bytes.len() as u64,
        "{from} to {to}"
    );
}

/// Breaks off after so many bytes.
struct Broken {
    bytes: Vec<u8>,
    after: usize,
}

impl Content for Broken {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let at = offset as usize;
        if at >= self.after {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        let n = buf.len().min(self.after - at);
        buf[..n].copy_from_slice(&self.bytes[at..at + n]);
        Ok(n)
    }
}

#[test]
fn what_arrived_before_a_transfer_broke_off_is_gone_or_stays_for_ever() {
    let sim = Sim::new(SimConfig::ext4(1));
    let replica = sim.replica();
    let bytes: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let id = content_id(&bytes);
    let begun = || {
        let mut begun = replica.begun(id)?;
        let mut got = vec![0; begun.size() as usize];
        let read = begun.read_at(0, &mut got).unwrap();
        assert_eq!((read, &got[..]), (got.len(), &bytes[..got.len()]));
        Some(got.len())
    };
    let break_off = |after| {
        let bytes = bytes.clone();
        let mut broken = Broken { bytes, after };
        let outcome = replica.stage(&p("f"), id, &mut broken).unwrap();
        assert!(matches!(outcome, Outcome::Blocked(_)), "{outcome:?}");
        assert!(!replica.is_staged(id));
        begun()
    };
    assert_eq!(break_off(500_000), None, "too little");
    assert_eq!(break_off(3_000_000), Some(3_000_000));
    assert_eq!(break_off(2_000_000), Some(3_000_000), "less than before");
    let mut other = Bytes(bytes.iter().map(|b| b ^ 1).collect());
    replica.stage(&p("f"), id, &mut other).unwrap();
    assert_eq!(begun(), None, "it was not what it said");
    assert_eq!(break_off(3_000_000), Some(3_000_000));
    let whole = replica.stage(&p("f"), id, &mut Bytes(bytes.clone()));
    assert_eq!((whole.unwrap(), begun()), (Outcome::Done, None));
}
