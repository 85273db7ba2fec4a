//! One folder: whether it is there and ours, what its file system lacks, and how the state in it stands.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use instep_core::limits::CLOCK_AHEAD_MAX_NS;
use instep_core::path::RelPath;
use instep_core::policy::Role;
use instep_core::version::Kind;
use instep_local::root::{Examination, Standing};
use instep_replica::Replica;
use instep_replica::records::DamageRecord;

use super::finding::{Finding, Fix};
use crate::error::{Exit, Failure};
use crate::quantity::{bytes, count, counted};
use crate::system_env::wall_ns;
use crate::targets::Target;
use crate::{places, records};

/// Less room than this is little.
const ROOM_BYTES: u64 = 256 * 1024 * 1024;
const ROOM_INODES: u64 = 1000;
/// An index that was written by a clock more than this ahead.
const CLOCK_NS: i64 = CLOCK_AHEAD_MAX_NS;

/// What was found of a folder.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) label: String,
    /// As it was typed.
    pub(super) at: String,
    pub(super) root: PathBuf,
    pub(super) role: Role,
    pub(super) unwritable: Option<String>,
    /// Who has its lock, and whether that answers.
    pub(super) holder: Option<String>,
    pub(super) answers: bool,
    pub(super) examined: Result<Examination, Failure>,
    pub(super) uid: u32,
    pub(super) files: u64,
    pub(super) dirs: u64,
    /// Files with times in the future, and one of them.
    pub(super) ahead: (u64, Option<RelPath>),
    /// How far the newest line of the log is ahead of the clock.
    pub(super) log_ahead_ns: i64,
    pub(super) damaged: Vec<RelPath>,
}

impl Facts {
    /// Looks; changes nothing.
    pub(super) fn gather(target: &Target, replica: Option<&Arc<dyn Replica>>) -> Self {
        let seen = &target.root.seen;
        let of = &target.member;
        let state_dir = places::state_dir();
        let examined = instep_local::root::examine(&seen.path, &state_dir, of.share, of.role);
        let now = wall_ns();
        let totals = replica.and_then(|r| r.sums()).unwrap_or_default();
        let log = replica.and_then(|r| records::log(r).ok());
        let newest = log.and_then(|all| all.first().map(|r| r.at_ns));
        let damaged = replica.and_then(|r| DamageRecord::all(r.as_ref()).ok());
        Self {
            label: of.label.clone(),
            at: target.root.typed.display().to_string(),
            root: seen.path.clone(),
            role: of.role,
            unwritable: seen.unwritable.clone(),
            holder: seen.holder.clone(),
            answers: matches!(target.client(), Ok(Some(_))),
            examined: examined.map_err(Failure::from),
            uid: rustix::process::geteuid().as_raw(),
            files: totals.files,
            dirs: totals.dirs + 1,
            ahead: replica.map_or((0, None), |r| ahead(r, now)),
            log_ahead_ns: newest.map_or(0, |at| at.saturating_sub(now)),
            damaged: damaged.unwrap_or_default().into_keys().collect(),
        }
    }
}

/// How many files have times in the future.
fn ahead(replica: &Arc<dyn Replica>, now_ns: i64) -> (u64, Option<RelPath>) {
    let mut out = (0, None);
    // What cannot be read is told of by whoever reads it for its own sake.
    let _unread = replica.subtree(&RelPath::root(), &mut |path, row| {
        let time = row
            .present()
            .filter(|v| v.kind == Kind::File)
            .and_then(|v| v.mtime.nanos_since_epoch());
        if time.is_some_and(|ns| ns > now_ns.saturating_add(CLOCK_NS)) {
            out.0 += 1;
            out.1.get_or_insert(path);
        }
        ControlFlow::Continue(())
    });
    out
}

/// What it means.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let label = &facts.label;
    let mut out = Vec::new();
    if let Some(why) = facts
        .unwritable
        .as_ref()
        .filter(|_| facts.role != Role::Source)
    {
        let what = format!("{label}: nothing can be made in {}", facts.at);
        out.push(
            Finding::fail(1005, Exit::Denied, what)
                .why(why.clone())
                .effect("it takes no changes from the others")
                .remedy(format!("sudo chown -R $(id -u) {}", facts.at)),
        );
    }
    if let Some(holder) = facts.holder.as_ref().filter(|_| !facts.answers) {
        out.push(
            Finding::warn(
                2410,
                format!("{label}: who holds {} does not answer", facts.at),
            )
            .why(format!("its lock is held by {holder}"))
            .effect("no other session can use the folder, and commands cannot reach that one")
            .remedy("instep doctor   again: it may just start or end")
            .remedy("kill PID        if it stays so"),
        );
    }
    match &facts.examined {
        Ok(seen) => examined(facts, seen, &mut out),
        Err(why) => out.push(Finding::of(label, why)),
    }
    out.extend(clock(facts));
    out.extend(facts.damaged.iter().map(|path| damage(facts, path)));
    out
}

fn examined(facts: &Facts, seen: &Examination, out: &mut Vec<Finding>) {
    let (label, at) = (&facts.label, &facts.at);
    if seen.index.is_empty() {
        let files = counted(facts.files, "file");
        out.push(Finding::good(format!(
            "{label}: {at}, {}, {files}; its index is whole ({})",
            seen.profile.fs_type,
            counted(seen.rows, "row")
        )));
    } else {
        let what = format!("{label}: the index of {at} is damaged");
        out.push(
            Finding::fail(1010, Exit::Damage, what)
                .why(seen.index.join("; "))
                .effect("no session can rely on it; your files are not concerned")
                .remedy(format!(
                    "instep sync --once {at} OTHER   it is rebuilt, and deletes nothing"
                )),
        );
    }
    if seen.profile.read_only && facts.role != Role::Source {
        out.push(
            Finding::warn(2107, format!("{label}: {at} is mounted read-only"))
                .why(format!("its {} takes no changes", seen.profile.fs_type))
                .effect("it takes no changes from the others; they go on")
                .remedy(format!("sudo mount -o remount,rw $(stat -c %m {at})")),
        );
    }
    out.extend(standing(facts, seen.standing));
    out.extend(permissions(facts, seen));
    out.extend(lacks(facts, seen));
    out.extend(room(facts, seen));
    out.extend(left(facts, seen));
}

fn standing(facts: &Facts, standing: Standing) -> Option<Finding> {
    let (label, at) = (&facts.label, &facts.at);
    let (why, effect) = match standing {
        Standing::Same => return None,
        Standing::Copied => (
            "its marker is that of another folder, which is still there",
            "the next session makes it a replica of its own",
        ),
        Standing::Moved => (
            "its marker was written in another place: it was moved, or restored from a backup",
            "the next session does not trust its index: it learns from the others, and deletes nothing",
        ),
    };
    let found = Finding::warn(2411, format!("{label}: {at} is not where its replica was"));
    Some(
        found
            .why(why)
            .effect(effect)
            .remedy(format!("instep sync --once {at} OTHER")),
    )
}

fn permissions(facts: &Facts, seen: &Examination) -> Option<Finding> {
    let base = seen.base.display();
    let what = format!("{}: {base} is open to others", facts.label);
    let found = Finding::warn(2406, what)
        .effect("others can read what was deleted, or change what instep remembers");
    if seen.uid != facts.uid {
        let why = format!(
            "it belongs to user {}, and this is user {}",
            seen.uid, facts.uid
        );
        return Some(
            found
                .why(why)
                .remedy(format!("sudo chown -R $(id -u) {base}")),
        );
    }
    if seen.mode.trailing_zeros() >= 6 || !seen.profile.modes {
        return None;
    }
    let found = found
        .why(format!("its mode is {:04o}", seen.mode))
        .remedy(format!("chmod 700 {base}"));
    Some(if seen.inside {
        found.fix(Fix::Close(facts.root.clone()))
    } else {
        found
    })
}

fn lacks(facts: &Facts, seen: &Examination) -> Option<Finding> {
    let p = &seen.profile;
    let mut lacks = Vec::new();
    if !p.events_reliable {
        lacks.push(String::from("events of changes that others make"));
        if seen.inside {
            lacks.push(String::from(
                "memory that two machines share, which an index needs",
            ));
        }
    }
    for (has, what) in [
        (p.leases, "leases"),
        (p.exchange, "an exchange of names"),
        (p.modes, "permission bits"),
        (p.case_sensitive, "names that differ by case alone"),
    ] {
        if !has {
            lacks.push(what.to_owned());
        }
    }
    if p.mtime_granularity_ns >= 1_000_000_000 {
        let seconds = p.mtime_granularity_ns / 1_000_000_000;
        lacks.push(format!("times finer than {seconds} s"));
    }
    if lacks.is_empty() {
        return None;
    }
    let what = format!("{}: {} is on {}", facts.label, facts.at, p.fs_type);
    Some(
        Finding::warn(2407, what)
            .why(format!("as far as is known it lacks {}", lacks.join(", ")))
            .effect("weaker replace, or polling, where these would be used; nothing is lost")
            .remedy("keep the folder on ext4, xfs or btrfs, if that matters"),
    )
}

fn room(facts: &Facts, seen: &Examination) -> Option<Finding> {
    let (label, at, left) = (&facts.label, &facts.at, &seen.left);
    let trash = format!(
        "{} in the trash of {label}, {}",
        counted(left.kept, "object"),
        bytes(left.kept_bytes)
    );
    let space = seen.space;
    let few = space.inodes < ROOM_INODES;
    if space.bytes >= ROOM_BYTES && !few && left.kept_bytes <= space.bytes {
        return (left.kept > 0).then(|| Finding::good(trash));
    }
    let inodes = if space.inodes == u64::MAX {
        String::new()
    } else {
        format!(" and {} inodes", count(space.inodes))
    };
    let what = format!("{label}: {}{inodes} are left for {at}", bytes(space.bytes));
    Some(
        Finding::warn(2408, what)
            .why(trash)
            .effect("files that do not fit will wait; nothing is lost")
            .remedy(format!("instep trash empty --older-than 7d {at}")),
    )
}

fn left(facts: &Facts, seen: &Examination) -> Option<Finding> {
    let left = &seen.left;
    // What a session is bringing just now lies about by right.
    let staged = if facts.holder.is_none() {
        left.staged
    } else {
        0
    };
    let unlisted = if facts.holder.is_none() {
        left.unlisted
    } else {
        0
    };
    if staged + unlisted + left.missing == 0 {
        return None;
    }
    let mut parts = Vec::new();
    if staged > 0 {
        let size = bytes(left.staged_bytes);
        parts.push(format!("{} on their way ({size})", counted(staged, "file")));
    }
    if unlisted > 0 {
        parts.push(format!("{} without a record", counted(unlisted, "object")));
    }
    if left.missing > 0 {
        parts.push(format!(
            "{} without an object",
            counted(left.missing, "record")
        ));
    }
    let what = format!(
        "{}: in {} lie {}",
        facts.label,
        seen.base.display(),
        parts.join(", ")
    );
    Some(
        Finding::warn(2409, what)
            .why("a session was killed, or the power was cut")
            .effect("none but the room that they take")
            .remedy(format!(
                "instep sync --once {} OTHER   it puts them in order",
                facts.at
            )),
    )
}

fn clock(facts: &Facts) -> Option<Finding> {
    let (n, first) = &facts.ahead;
    let label = &facts.label;
    if facts.log_ahead_ns > CLOCK_NS {
        let what = format!("{label}: the clock went back, or was ahead");
        let ahead = crate::quantity::span(facts.log_ahead_ns.unsigned_abs());
        return Some(
            Finding::warn(2404, what)
                .why(format!("the log has a line from {ahead} in the future"))
                .effect("which of two concurrent changes is shown may surprise; none is lost")
                .remedy("sudo timedatectl set-ntp true"),
        );
    }
    let first = first.as_ref()?;
    let what = format!("{label}: {} with times in the future", counted(*n, "file"));
    Some(
        Finding::warn(2404, what)
            .why(format!("{first} for example: a clock was or is wrong"))
            .effect("which of two concurrent changes is shown may surprise; none is lost")
            .remedy(format!("touch {}/{first}", facts.at)),
    )
}

fn damage(facts: &Facts, path: &RelPath) -> Finding {
    let what = format!("{}: {path} changed although nobody wrote it", facts.label);
    Finding::fail(2303, Exit::Damage, what)
        .why("it was read again, and has other content than was recorded")
        .effect("it is neither passed on nor replaced; all other files go on")
        .remedy(format!(
            "instep verify --repair {}/{path}   or --accept",
            facts.at
        ))
}

#[cfg(test)]
mod tests {
    use instep_fs::{Profile, Space};
    use instep_local::root::Left;

    use super::*;
    use crate::snapshot;
    use crate::ui::capture;

    fn well() -> Facts {
        let profile = Profile {
            fs_type: "ext4".into(),
            exchange: true,
            unnamed_files: true,
            leases: true,
            reflink: false,
            events_reliable: true,
            read_only: false,
            case_sensitive: true,
            modes: true,
            xattrs: true,
            mtime_granularity_ns: 1,
            tick_ns: 0,
            fs_id: 1,
        };
        let examined = Examination {
            profile,
            space: Space {
                bytes: 1 << 40,
                inodes: u64::MAX,
            },
            base: "/home/ada/notes/.instep".into(),
            inside: true,
            mode: 0o700,
            uid: 1000,
            standing: Standing::Same,
            index: Vec::new(),
            rows: 1_290,
            left: Left {
                kept: 214,
                kept_bytes: 1_288_490_188,
                ..Left::default()
            },
        };
        Facts {
            label: "A".into(),
            at: "~/notes".into(),
            root: "/home/ada/notes".into(),
            role: Role::Both,
            unwritable: None,
            holder: None,
            answers: false,
            examined: Ok(examined),
            uid: 1000,
            files: 1_204,
            dirs: 86,
            ahead: (0, None),
            log_ahead_ns: 0,
            damaged: Vec::new(),
        }
    }

    fn text(facts: &Facts) -> String {
        let style = capture::style();
        judge(facts).iter().map(|f| f.render(&style)).collect()
    }

    #[test]
    fn a_folder_that_is_well_is_told_as_recorded() {
        snapshot::check("doctor-folder", &text(&well()));
        let of_session = Facts {
            holder: Some("pid 7: instep sync a b".into()),
            answers: true,
            ..well()
        };
        assert_eq!(text(&of_session), text(&well()));
    }

    #[test]
    fn everything_that_can_be_wrong_with_a_folder_is_told_as_recorded() {
        let mut facts = well();
        let path = RelPath::new(b"drafts/plan.md").ok();
        facts.unwritable =
            Some("write in \"/home/ada/notes\": permission denied (errno 13)".into());
        facts.holder = Some("pid 7: instep sync a b".into());
        facts.ahead = (3, path.clone());
        facts.damaged = path.into_iter().collect();
        if let Ok(seen) = &mut facts.examined {
            let profile = &mut seen.profile;
            profile.fs_type = "fuse.sshfs".into();
            (profile.exchange, profile.leases, profile.events_reliable) = (false, false, false);
            profile.read_only = true;
            profile.mtime_granularity_ns = 2_000_000_000;
            seen.space = Space {
                bytes: 1 << 20,
                inodes: 12,
            };
            seen.mode = 0o755;
            seen.standing = Standing::Moved;
            seen.index = vec!["drafts/plan.md: the version on disk is not a known one".into()];
            seen.left.missing = 1;
        }
        snapshot::check("doctor-folder-ill", &text(&facts));
        facts.holder = None;
        facts.ahead = (0, None);
        facts.log_ahead_ns = 7_200_000_000_000;
        if let Ok(seen) = &mut facts.examined {
            seen.standing = Standing::Copied;
            seen.uid = 0;
            seen.left.staged = 2;
            seen.left.unlisted = 1;
        }
        snapshot::check("doctor-folder-others", &text(&facts));
    }

    #[test]
    fn only_the_mode_of_what_is_ours_can_be_mended() {
        let mut facts = well();
        if let Ok(seen) = &mut facts.examined {
            seen.mode = 0o750;
        }
        let fixes = |facts: &Facts| judge(facts).into_iter().filter_map(|f| f.fix).count();
        assert_eq!(fixes(&facts), 1);
        facts.uid = 1001;
        assert_eq!(fixes(&facts), 0);
    }
}
