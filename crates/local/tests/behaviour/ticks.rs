//! A file system whose clock ticks coarsely: a save within the tick of the one before it leaves size and times
//! as they were, and is seen all the same.

use std::sync::{Arc, Mutex};

use instep_core::plan::Outcome;
use instep_fs::sim::SimConfig;
use instep_replica::Replica;
use instep_replica::conformance::User as _;

use super::acts::{Given, incoming, look, observe, record, row};
use crate::support::p;
use crate::support::sim::Sim;

/// An older kernel, at the beginning of a tick.
fn coarse() -> Sim {
    let sim = Sim::new(SimConfig {
        multigrain: false,
        tick_ns: 10_000_000,
        ..SimConfig::ext4(1)
    });
    let fs = sim.fs();
    fs.set_now((fs.now() / 10_000_000 + 1) * 10_000_000);
    sim
}

fn rest(sim: &Sim) {
    let fs = sim.fs();
    observe(sim.replica(), &|ms| {
        fs.advance(ms.cast_signed() * 1_000_000);
    });
}

fn content(sim: &Sim) -> instep_core::id::ContentId {
    row(sim.replica(), &p("f")).present().unwrap().content
}

#[test]
fn a_second_save_within_a_tick_is_missed() {
    let sim = coarse();
    sim.write(&p("f"), b"one").unwrap();
    let first = look(sim.replica());
    record(sim.replica(), &first);
    assert_eq!(
        content(&sim),
        instep_chunk::content_id(b"one"),
        "it is passed on at once"
    );
    let before = sim.fs().stat("f").unwrap();
    sim.write(&p("f"), b"two").unwrap();
    assert_eq!(sim.fs().stat("f").unwrap(), before, "nothing shows it");
    rest(&sim);
    assert_eq!(content(&sim), instep_chunk::content_id(b"two"));
    // Once it is certain, no look reads it any more.
    sim.fs().reset_calls();
    assert!(look(sim.replica()).findings.is_empty());
    assert!(!sim.fs().count_calls().contains_key("open_file"));
}

#[test]
fn a_file_whose_next_change_may_not_show_is_not_handed_out() {
    let sim = coarse();
    sim.write(&p("f"), b"one").unwrap();
    record(sim.replica(), &look(sim.replica()));
    let one = instep_chunk::content_id(b"one");
    let mut given = sim.replica().open(&p("f"), one).unwrap().unwrap();
    let mut bytes = [0; 3];
    given.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"one");
    assert!(
        given.as_fd().is_none(),
        "it must be hashed by whoever takes it"
    );
}

#[test]
fn a_save_within_the_tick_in_which_a_file_was_brought_is_missed() {
    let sim = coarse();
    let (path, fs) = (p("f"), sim.fs());
    let mut action = incoming(sim.replica(), &path, Some(b"one"), 1);
    // Its maker saved it within this tick, too.
    let now = instep_core::time::Mtime::from_nanos(fs.now() / 10_000_000 * 10_000_000);
    if let instep_core::plan::Goal::File { mtime, .. } = &mut action.goal {
        *mtime = now;
    }
    let outcomes = sim
        .replica()
        .apply(&[action], &Given::of(&[b"one"]))
        .unwrap();
    assert_eq!(outcomes, [Outcome::Done]);
    let before = fs.stat("f").unwrap();
    sim.write(&path, b"two").unwrap();
    assert_eq!(fs.stat("f").unwrap(), before, "nothing shows it");
    assert!(sim.replica().take_hints().paths.contains(&path));
    rest(&sim);
    assert_eq!(content(&sim), instep_chunk::content_id(b"two"));
}

/// Its program makes the file empty and writes the first half, which is as long as what was there, when it was already
/// asked whether anybody writes to it.
#[test]
fn half_of_what_a_program_writes_is_recorded_when_it_opened_the_file_while_that_was_read() {
    let sim = coarse();
    let fs = sim.fs();
    sim.write(&p("f"), b"one").unwrap();
    let before = fs.stat("f").unwrap();
    let writing = Arc::new(Mutex::new(None));
    let opened = writing.clone();
    fs.set_hook(Box::new(move |fs, op| {
        let mut opened = opened.lock().unwrap();
        if op == "read_at" && opened.is_none() {
            let fd = fs.user_open_write("f").unwrap();
            fs.user_truncate(&fd, 0).unwrap();
            fs.user_write(&fd, 0, b"two").unwrap();
            *opened = Some(fd);
        }
    }));
    let first = look(sim.replica());
    fs.clear_hook();
    let fd = writing.lock().unwrap().take().unwrap();
    assert_eq!(fs.stat("f").unwrap(), before, "nothing shows it");
    record(sim.replica(), &first);
    assert!(row(sim.replica(), &p("f")).entry.is_empty(), "it is half");
    fs.user_write(&fd, 3, b" and three").unwrap();
    fs.user_close(fd).unwrap();
    rest(&sim);
    assert_eq!(
        content(&sim),
        instep_chunk::content_id(b"two and three"),
        "it is looked at again"
    );
}

#[test]
fn a_kernel_that_stamps_every_change_is_slowed_down() {
    let sim = Sim::new(SimConfig::ext4(1));
    sim.write(&p("f"), b"one").unwrap();
    let first = look(sim.replica());
    assert!(first.again.is_empty());
    record(sim.replica(), &first);
    assert!(look(sim.replica()).findings.is_empty());
}
