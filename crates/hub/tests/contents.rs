//! Contents of a hub: shared, decayed, verified, brought again.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::path::PathBuf;

use instep_chunk::content_id;
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Outcome};
use instep_hub::{HubReplica, What};
use instep_replica::content::{Bytes, NoSources};
use instep_replica::records::ShareRecord;
use instep_replica::{
    Book, Checked, Content, ErrorKind, Found, Replica, Scope, ShareState, Sources,
};

use support::real::{Real, entries};
use support::{SHARE, action, bring, p, random, read};

fn flip(file: &PathBuf) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

/// What an engine does with what a look finds.
fn observe(hub: &HubReplica) -> Vec<(RelPath, Found)> {
    let look = hub.look(&Scope::Everything).unwrap();
    let share = ShareState::new(SHARE, ShareRecord::default());
    hub.record(&look, &share).unwrap();
    let found = look.findings.into_iter();
    found.map(|f| (f.path, f.found)).collect()
}

#[test]
fn an_insertion_brings_more_than_the_chunks_around_it() {
    let real = Real::new();
    let hub = real.hub();
    let one = random(1, 6_000_000);
    bring(hub.as_ref(), &p("one"), 1, Some(&one));
    hub.barrier().unwrap();
    let before = real.chunk_bytes();
    assert!(before >= one.len() as u64);
    let mut two = one.clone();
    two.splice(3_000_000..3_000_000, *b"something in the middle");
    bring(hub.as_ref(), &p("two"), 2, Some(&two));
    bring(hub.as_ref(), &p("three"), 3, Some(&one));
    hub.barrier().unwrap();
    let more = real.chunk_bytes() - before;
    assert!(more < 800_000, "{more} bytes for a change of 23");
    assert_eq!(read(hub.as_ref(), &one).unwrap(), Some(one));
    assert_eq!(read(hub.as_ref(), &two).unwrap(), Some(two));
}

#[test]
fn a_content_cannot_be_read_before_or_after_it_is_durable() {
    let mut real = Real::new();
    let sizes = [0, 1, 65_536, 65_537, 300_000, 20_000_000];
    let contents: Vec<_> = sizes.iter().map(|n| random(*n as u64, *n)).collect();
    for (n, bytes) in contents.iter().enumerate() {
        let path = p(&format!("d/{n}"));
        bring(real.hub().as_ref(), &path, 1 + n as u64, Some(bytes));
    }
    let whole = |real: &Real| {
        for bytes in &contents {
            let read = read(real.hub().as_ref(), bytes).unwrap();
            assert!(read.as_ref() == Some(bytes), "of {} bytes", bytes.len());
        }
    };
    whole(&real);
    real.kill();
    real.open();
    whole(&real);
    real.hub().barrier().unwrap();
    whole(&real);
    real.hub().close().unwrap();
    real.open();
    whole(&real);
    let verified = real.hub().verify(&|| false).unwrap();
    assert_eq!((verified.contents, verified.flaws.len()), (6, 0));
    assert!(verified.bytes > 20_365_000);
}

/// A content of one object and one of many decay, one chunk of each.
#[test]
fn decayed_bytes_are_handed_out_or_never_brought_again() {
    for size in [10_000, 1_000_000] {
        let real = Real::new();
        let hub = real.hub();
        let bytes = random(5, size);
        bring(hub.as_ref(), &p("a"), 1, Some(&bytes));
        hub.barrier().unwrap();
        real.chunks().iter().for_each(|(file, _)| flip(file));
        let got = read(hub.as_ref(), &bytes);
        assert!(
            got.is_err(),
            "decayed bytes were read: {:?}",
            got.map(|b| b.is_some())
        );
        assert_eq!(observe(hub), [(p("a"), Found::Forgotten)]);
        let aside = entries(&real.home().join("damaged"));
        assert_eq!(aside.len(), 1, "what may be all that is left is gone");
        assert_eq!(read(hub.as_ref(), &bytes).unwrap(), None, "it is offered");
        assert!(observe(hub).is_empty(), "it is found again");
        bring(hub.as_ref(), &p("a"), 2, Some(&bytes));
        assert_eq!(read(hub.as_ref(), &bytes).unwrap(), Some(bytes));
        assert!(observe(hub).is_empty());
        assert!(hub.verify(&|| false).unwrap().flaws.is_empty());
    }
}

#[test]
fn a_missing_chunk_is_not_missed_by_a_check() {
    let mut real = Real::new();
    let bytes = random(5, 1_000_000);
    bring(real.hub().as_ref(), &p("a"), 1, Some(&bytes));
    real.hub().close().unwrap();
    assert!(matches!(
        real.hub().check(&p("a")).unwrap(),
        Checked::Sound(1_000_000)
    ));
    fs::remove_file(&real.chunks()[3].0).unwrap();
    let checked = real.hub().check(&p("a")).unwrap();
    assert!(matches!(checked, Checked::Unreadable(_)), "{checked:?}");
    // What was found is remembered.
    assert_eq!(
        real.hub()
            .take_hints()
            .paths
            .into_iter()
            .collect::<Vec<_>>(),
        [p("a")]
    );
    real.open();
    assert_eq!(observe(real.hub()), [(p("a"), Found::Forgotten)]);
}

#[test]
fn a_verification_does_not_say_which_path_suffers_from_which_chunk() {
    let real = Real::new();
    let hub = real.hub();
    let (one, shared) = (random(1, 50_000), random(2, 400_000));
    bring(hub.as_ref(), &p("one"), 1, Some(&one));
    bring(hub.as_ref(), &p("two"), 2, Some(&shared));
    bring(hub.as_ref(), &p("past"), 3, Some(&shared));
    bring(hub.as_ref(), &p("past"), 4, Some(b"now another"));
    hub.barrier().unwrap();
    let chunk_of_one = content_id(&one);
    let of_shared: Vec<_> = real
        .chunks()
        .into_iter()
        .filter(|(file, size)| *size > 16_000 && !file.ends_with(chunk_of_one.to_string()))
        .collect();
    fs::remove_file(&of_shared[0].0).unwrap();
    let gone: ContentId = of_shared[0]
        .0
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let one_file = real.chunks().into_iter().map(|(f, _)| f);
    flip(
        &one_file
            .into_iter()
            .find(|f| f.ends_with(chunk_of_one.to_string()))
            .unwrap(),
    );
    let verified = hub.verify(&|| false).unwrap();
    let mut seen: Vec<_> = verified
        .flaws
        .iter()
        .map(|f| (f.path.clone().unwrap().to_string(), f.chunk, f.what.clone()))
        .collect();
    seen.sort();
    let mut want = [
        ("one".to_owned(), chunk_of_one, What::Decayed),
        ("past".to_owned(), gone, What::Missing),
        ("two".to_owned(), gone, What::Missing),
    ];
    want.sort();
    assert_eq!(seen, want);
    let found = observe(hub);
    assert_eq!(
        found,
        [(p("one"), Found::Forgotten), (p("two"), Found::Forgotten)]
    );
}

/// The first who is asked lies.
struct Liar(Vec<u8>);

impl Sources for Liar {
    fn open(&self, _: &Action, _: ContentId) -> Option<Box<dyn Content>> {
        Some(Box::new(Bytes(random(99, 300_000))))
    }

    fn open_other(&self, _: &Action, _: ContentId, tried: usize) -> Option<Box<dyn Content>> {
        (tried == 1).then(|| Box::new(Bytes(self.0.clone())) as Box<dyn Content>)
    }
}

#[test]
fn a_liar_hides_who_tells_the_truth() {
    let real = Real::new();
    let hub = real.hub();
    let bytes = random(1, 200_000);
    let action = action(hub.as_ref(), &p("a"), 1, Some(&bytes));
    let outcome = hub.apply(&[action], &Liar(bytes.clone())).unwrap();
    assert_eq!(outcome, [Outcome::Done]);
    assert_eq!(read(hub.as_ref(), &bytes).unwrap(), Some(bytes));
}

/// A source that breaks off.
struct BreaksOff(Vec<u8>, u64);

impl Content for BreaksOff {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        if offset >= self.1 {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        Bytes(self.0.clone()).read_at(offset, buf)
    }
}

#[test]
fn a_transfer_that_broke_off_begins_again_at_nothing() {
    let real = Real::new();
    let hub = real.hub();
    let bytes = random(1, 6_000_000);
    let id = content_id(&bytes);
    let stage = |upto| hub.stage(&p("a"), id, &mut BreaksOff(bytes.clone(), upto));
    assert!(matches!(stage(500_000).unwrap(), Outcome::Blocked(_)));
    assert!(hub.begun(id).is_none(), "not worth it");
    assert!(matches!(stage(5_000_000).unwrap(), Outcome::Blocked(_)));
    assert!(matches!(stage(2_000_000).unwrap(), Outcome::Blocked(_)));
    hub.collect().unwrap();
    let mut begun = hub.begun(id).unwrap();
    let size = begun.size() as usize;
    assert!((3_500_000..5_100_000).contains(&size), "{size}");
    let mut got = vec![0; size];
    let mut at = 0;
    while at < size {
        at += begun.read_at(at as u64, &mut got[at..]).unwrap();
    }
    assert!(got == bytes[..size], "other bytes");
    assert!(begun.verified().is_none(), "nobody verified it");
    let chunk = real.chunks().pop().unwrap().0;
    let kept = fs::read(&chunk).unwrap();
    fs::remove_file(&chunk).unwrap();
    assert!(hub.begun(id).is_none(), "a part of it is gone");
    fs::write(&chunk, kept).unwrap();
    assert_eq!(stage(u64::MAX).unwrap(), Outcome::Done);
    assert!(hub.begun(id).is_none(), "it is all here");
    assert_eq!(read(hub.as_ref(), &bytes).unwrap(), Some(bytes));
}

#[test]
fn a_content_that_is_here_under_another_name_is_fetched_again() {
    let real = Real::new();
    let hub = real.hub();
    let bytes = random(1, 200_000);
    bring(hub.as_ref(), &p("a"), 1, Some(&bytes));
    bring(hub.as_ref(), &p("a"), 2, None);
    let again = action(hub.as_ref(), &p("b"), 3, Some(&bytes));
    assert_eq!(hub.apply(&[again], &NoSources).unwrap(), [Outcome::Done]);
}

#[test]
fn two_processes_have_one_hub() {
    let real = Real::new();
    let second = real.try_open().map(drop).unwrap_err();
    assert_eq!(second.kind, ErrorKind::InUse);
}

#[test]
fn what_was_brought_back_is_forgotten_when_the_process_dies() {
    let mut real = Real::new();
    let bytes = random(1, 100_000);
    bring(real.hub().as_ref(), &p("d/a"), 1, Some(&bytes));
    bring(real.hub().as_ref(), &p("d/a"), 2, None);
    let (key, _) = real.hub().records(Book::Trash).unwrap().pop().unwrap();
    assert_eq!(real.hub().restore(&key, None).unwrap(), p("d/a"));
    assert!(
        real.hub().restore(&key, None).is_err(),
        "it came back twice"
    );
    real.kill();
    real.open();
    let found = observe(real.hub());
    assert_eq!(found.len(), 2, "the directory and the file: {found:?}");
    let row = real.hub().row(&p("d/a")).unwrap().unwrap();
    assert_eq!(row.present().unwrap().content, content_id(&bytes));
    assert_eq!(row.shown.unwrap().actor, real.hub().actor());
    assert!(observe(real.hub()).is_empty());
}
