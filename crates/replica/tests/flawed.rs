//! The suite notices a replica that is wrong in one way: each flaw breaks the promise that forbids it.

use std::sync::Arc;

use instep_chunk::content_id;
use instep_core::id::{ContentId, ShareId};
use instep_core::path::RelPath;
use instep_core::plan::{Action, Outcome, Precondition};
use instep_replica::conformance::{Fault, Subject, User, run_all, run_some};
use instep_replica::content::{Bytes, Content, Sources};
use instep_replica::env::{Env, StepEnv};
use instep_replica::memory::{MemoryReplica, Object};
use instep_replica::{Book, Found, HintSet, Look, Replica, Result, Scope, ShareState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    Mute,
    Forgetful,
    Blind,
    EmptiedWhenGone,
    Overwriting,
    Credulous,
    RenamesOver,
    KeepsNothing,
    LosesRecords,
    MintsAgain,
    Touching,
}

/// The reference with one flaw.
struct Flawed {
    flaw: Flaw,
    inner: MemoryReplica,
    env: Arc<StepEnv>,
}

impl Flawed {
    fn new(flaw: Flaw) -> Self {
        let env = Arc::new(StepEnv::default());
        Self {
            flaw,
            inner: MemoryReplica::new("A", ShareId([1; 16]), env.clone()),
            env,
        }
    }

    /// The action as it would be had it been planned on what is there right now.
    fn unguarded(&self, action: &Action) -> Result<Action> {
        let scope = Scope::Some {
            paths: [action.path.clone()].into(),
            trees: [].into(),
        };
        let look = self.inner.look(&scope)?;
        let mut action = action.clone();
        match look
            .findings
            .iter()
            .find(|f| f.path == action.path)
            .map(|f| &f.found)
        {
            Some(Found::Present {
                kind,
                content,
                print,
                ..
            }) => {
                let (kind, content, print) = (*kind, *content, *print);
                action.before = Precondition::Unchanged {
                    kind,
                    print,
                    content,
                };
            }
            Some(Found::Absent { .. }) => action.before = Precondition::Absent,
            Some(
                Found::Refreshed { .. }
                | Found::Held(_)
                | Found::Forgotten
                | Found::Ancestor { .. },
            )
            | None => {}
        }
        Ok(action)
    }
}

impl Replica for Flawed {
    instep_replica::hand_on!(
        inner:
        id actor share describe capabilities guard watch row children subtree is_staged
        adopt_move mint restore purge barrier read_record records
    );

    fn take_hints(&self) -> HintSet {
        let hints = self.inner.take_hints();
        if self.flaw == Flaw::Mute {
            HintSet::default()
        } else {
            hints
        }
    }
    fn look(&self, scope: &Scope) -> Result<Look> {
        if self.flaw == Flaw::EmptiedWhenGone && self.inner.guard().is_err() {
            return Ok(Look::default());
        }
        let mut look = self.inner.look(scope)?;
        if self.flaw == Flaw::Blind {
            look.findings
                .retain(|f| !matches!(f.found, Found::Absent { .. }));
        }
        if self.flaw == Flaw::Touching {
            let litter = RelPath::new(b"litter").expect("legal");
            self.inner.user_write(&litter, b"x").expect("there is room");
        }
        Ok(look)
    }
    fn record(&self, look: &Look, share: &ShareState) -> Result<Vec<RelPath>> {
        match self.flaw {
            Flaw::Forgetful => Ok(Vec::new()),
            Flaw::MintsAgain => {
                let absent = |f: &mut instep_replica::Finding| {
                    f.found = Found::Absent {
                        was: instep_core::version::Kind::File,
                    };
                };
                let mut gone = look.clone();
                gone.findings.iter_mut().for_each(absent);
                self.inner.record(&gone, share)?;
                self.inner.record(look, share)
            }
            _ => self.inner.record(look, share),
        }
    }
    fn open(&self, path: &RelPath, content: ContentId) -> Result<Option<Box<dyn Content>>> {
        let here = self
            .inner
            .row(path)?
            .and_then(|r| r.present().map(|v| v.content));
        if self.flaw == Flaw::KeepsNothing && here != Some(content) {
            return Ok(None);
        }
        self.inner.open(path, content)
    }
    fn stage(&self, path: &RelPath, content: ContentId, from: &mut dyn Content) -> Result<Outcome> {
        if self.flaw != Flaw::Credulous {
            return self.inner.stage(path, content, from);
        }
        let mut bytes = vec![0; from.size() as usize];
        from.read_at(0, &mut bytes).expect("in memory");
        self.inner
            .stage(path, content_id(&bytes), &mut Bytes(bytes))
    }
    fn apply(&self, actions: &[Action], sources: &dyn Sources) -> Result<Vec<Outcome>> {
        if self.flaw != Flaw::Overwriting {
            return self.inner.apply(actions, sources);
        }
        let actions = actions
            .iter()
            .map(|a| self.unguarded(a))
            .collect::<Result<Vec<_>>>()?;
        self.inner.apply(&actions, sources)
    }
    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Outcome> {
        let file = self
            .inner
            .tree()
            .get(to)
            .is_some_and(|o| matches!(o, Object::File { .. }));
        if self.flaw == Flaw::RenamesOver && file {
            self.inner.user_remove(to).expect("it is there");
        }
        Replica::rename(&self.inner, from, to)
    }
    fn write_record(&self, book: Book, key: &str, body: Option<&str>) -> Result<()> {
        if self.flaw == Flaw::LosesRecords && book == Book::Holds {
            return Ok(());
        }
        self.inner.write_record(book, key, body)
    }
}

impl Subject for Flawed {
    fn replica(&self) -> &dyn Replica {
        self
    }
    fn user(&self) -> &dyn User {
        &self.inner
    }
    fn pass_ms(&self, ms: u64) {
        self.env.sleep_ms(ms);
    }
    fn inject(&self, fault: &Fault, on: bool) -> bool {
        let Fault::Gone = fault else { return false };
        self.inner.set_gone(on);
        true
    }
    fn reopen(&mut self) -> bool {
        false
    }
}

#[test]
fn a_flaw_breaks_the_promise_that_forbids_it() {
    let sound = run_all(&|| Box::new(Flawed::new(Flaw::None)));
    assert!(sound.broken.is_empty(), "{sound}");
    for (flaw, symptom) in [
        (Flaw::Forgetful, "a_recorded_change_is_found_again"),
        (
            Flaw::Blind,
            "a_deleted_directory_leaves_its_contents_behind",
        ),
        (
            Flaw::EmptiedWhenGone,
            "a_root_that_vanished_counts_as_emptied",
        ),
        (Flaw::Overwriting, "an_unseen_edit_is_overwritten"),
        (Flaw::Overwriting, "an_unseen_file_is_overwritten"),
        (Flaw::Credulous, "wrong_bytes_are_staged"),
        (Flaw::RenamesOver, "a_rename_overwrites"),
        (Flaw::KeepsNothing, "an_overwritten_file_is_lost"),
        (Flaw::KeepsNothing, "a_deleted_file_is_lost"),
        (Flaw::LosesRecords, "a_record_of_a_book_is_lost"),
        (Flaw::MintsAgain, "recording_twice_mints_twice"),
        (Flaw::Touching, "a_look_changes_something"),
        (Flaw::Mute, "a_new_directory_hides_what_is_written_into_it"),
    ] {
        let report = run_some(&|| Box::new(Flawed::new(flaw)), &|p| p.symptom == symptom);
        assert_eq!(
            report.broken.len(),
            1,
            "{flaw:?} should break {symptom}: {report}"
        );
    }
}
