//! Why a machine could not be reached, or a program not be started there, in the words of all other failures.
//!
//! Owns which of ssh's words mean what. Invariant: whoever is refused is told so; whatever is not understood counts as
//! not reached, and is shown.

use instep_wire::error::LinkError;

use super::agents::KIND;
use super::ssh::{Ended, Host};
use crate::error::{Exit, Failure};

/// What `ssh` ends with when it did not come to start the command.
const SSH_FAILED: i32 = 255;
/// How a program says that it does not know what it is asked: one that is too old for it.
const USAGE: i32 = 2;

/// The last line that says something.
fn last(said: &str) -> &str {
    let mut lines = said.lines().map(str::trim);
    lines.rfind(|l| !l.is_empty()).unwrap_or_default()
}

/// An attempt that came to nothing.
pub(crate) fn failure(host: &Host, ended: &Ended) -> Failure {
    match ended.code {
        Some(SSH_FAILED) => of_ssh(host, &ended.said),
        Some(USAGE) if ended.said.contains("instep") => too_old(host, &ended.said),
        Some(code) => not_started(host, code, ended),
        None => unreachable(host, &ended.why),
    }
}

fn of_ssh(host: &Host, said: &str) -> Failure {
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    if has(&["IDENTIFICATION HAS CHANGED"]) {
        key_changed(host, said)
    } else if has(&["Host key verification failed", "host key is known for"]) {
        key_unknown(host, said)
    } else if has(&[
        "Permission denied",
        "Too many authentication failures",
        "authentication methods available",
    ]) {
        refused(host, said)
    } else {
        let why = match last(said) {
            "" => "ssh says nothing more",
            why => why,
        };
        unreachable(host, why)
    }
}

fn unreachable(host: &Host, why: &str) -> Failure {
    Failure::new(1046, Exit::Unreachable, format!("{host} cannot be reached"))
        .why(why)
        .remedy(format!(
            "{} true   must work without a question",
            host.command()
        ))
}

fn refused(host: &Host, said: &str) -> Failure {
    let login = host.command();
    Failure::new(1048, Exit::Denied, format!("{host} does not let you in"))
        .why(last(said))
        .remedy(format!("{login} true   must work without a question"))
        .remedy(login.replacen("ssh ", "ssh-copy-id ", 1) + "   puts your key there")
}

fn key_changed(host: &Host, said: &str) -> Failure {
    let mut prints = said.lines().map(str::trim);
    let print = prints.rfind(|l| l.starts_with("SHA256:"));
    let shown = print.map_or(String::new(), |p| {
        format!("\nit shows {}", p.trim_end_matches('.'))
    });
    Failure::new(
        1049,
        Exit::Denied,
        format!("{host} shows another key than before"),
    )
    .why(format!(
        "it was set up anew, or somebody else answers in its place{shown}"
    ))
    .effect("nothing was told it, and nothing was changed")
    .remedy("compare that with what whoever runs the machine says")
    .remedy(format!("if it is right:  ssh-keygen -R {host}"))
}

fn key_unknown(host: &Host, said: &str) -> Failure {
    Failure::new(
        1049,
        Exit::Denied,
        format!("the key of {host} is not known"),
    )
    .why(last(said))
    .effect("nothing was told it, and nothing was changed")
    .remedy(format!("{} true   shows the key and asks", host.command()))
}

fn not_started(host: &Host, code: i32, ended: &Ended) -> Failure {
    let mut why = format!("the command there ended with {code}");
    for more in [last(&ended.said), &ended.why] {
        if !more.is_empty() {
            why = format!("{why}\n{more}");
        }
    }
    Failure::new(
        1043,
        Exit::Unreachable,
        format!("{host} does not start the program"),
    )
    .why(why)
    .remedy(format!(
        "{} echo yes   must print yes and nothing else",
        host.command()
    ))
}

fn too_old(host: &Host, said: &str) -> Failure {
    Failure::new(
        1050,
        Exit::Incompatible,
        format!("the instep on {host} is too old"),
    )
    .why(format!(
        "this one is {}; that one does not know what it is asked: {}",
        env!("CARGO_PKG_VERSION"),
        said.lines().next().unwrap_or_default().trim()
    ))
    .remedy(format!(
        "install instep {} on {host}",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Ours was brought there and is not there.
pub(crate) fn not_kept(host: &Host, ended: &Ended) -> Failure {
    if ended.code == Some(SSH_FAILED) {
        return failure(host, ended);
    }
    let mut why = String::from("it was brought there, and could not be started a moment later");
    if !last(&ended.said).is_empty() {
        why = format!("{why}: {}", last(&ended.said));
    }
    Failure::new(1047, Exit::Unreachable, format!("{host} does not keep the program"))
        .why(why)
        .remedy("a home from which nothing may be started (noexec) needs another place: set XDG_DATA_HOME there")
        .remedy(format!("or install instep on {host}"))
}

/// Ours could not be brought there.
pub(crate) fn not_brought(host: &Host, why: &str, said: &str) -> Failure {
    let why = match last(said) {
        "" => why.to_owned(),
        said => format!("{why}: {said}"),
    };
    let login = host.command();
    Failure::new(
        1047,
        Exit::Unreachable,
        format!("bring the program to {host}"),
    )
    .why(why)
    .remedy(format!("{login} df -h .   shows whether there is room"))
    .remedy(format!("or install instep on {host}"))
}

/// Ours cannot run there, and there is none.
pub(crate) fn other_kind(host: &Host, ours: &str, ended: &Ended) -> Failure {
    let kind = ended
        .said
        .lines()
        .filter_map(|l| l.strip_prefix(KIND))
        .next_back();
    let kind = kind.unwrap_or("another machine").trim();
    let what = format!("there is no instep on {host}, and this one cannot run there");
    Failure::new(1053, Exit::Unreachable, what)
        .why(format!("{host} is {kind}; this machine is {ours}"))
        .remedy(format!(
            "install instep for {kind} on {host}, in a directory of its PATH"
        ))
        .remedy(format!(
            "{} instep --version   must print its version",
            host.command()
        ))
}

/// Why there is no link with a program that was started.
pub(crate) fn broken(at: &str, e: &LinkError) -> Failure {
    match e {
        LinkError::Refused { .. } => Failure::new(
            1048,
            Exit::Denied,
            format!("{at} will have nothing to do with us"),
        )
        .remedy("use the same version on both machines"),
        LinkError::WrongKey { .. } => Failure::new(
            1049,
            Exit::Denied,
            format!("{at} shows another key than before"),
        )
        .remedy("compare the keys with what whoever runs the machine says"),
        LinkError::Incompatible { .. } => Failure::new(
            1050,
            Exit::Incompatible,
            format!("{at} has another version"),
        )
        .remedy("use the same version on both machines"),
        LinkError::Violation(_) => {
            Failure::new(1041, Exit::Failed, format!("{at} says what no instep says"))
                .remedy("use the same version on both machines")
        }
        _ => Failure::new(1040, Exit::Unreachable, format!("{at} does not answer"))
            .remedy("try again"),
    }
    .why(e.to_string())
}

#[cfg(test)]
mod tests {
    use instep_wire::message::Versions;

    use super::*;
    use crate::snapshot;

    fn nas() -> Host {
        Host {
            user: Some("ada".into()),
            name: "nas".into(),
            port: None,
        }
    }

    fn ended(code: i32, said: &str) -> Ended {
        Ended {
            code: Some(code),
            why: "reach nas: it ended before it was ready".into(),
            said: said.into(),
        }
    }

    #[test]
    fn what_ssh_says_decides_whether_a_machine_is_away_or_refuses() {
        for (name, said, exit) in [
            (
                "error-E1046",
                "ssh: connect to host nas port 22: Connection refused\n",
                Exit::Unreachable,
            ),
            (
                "error-E1048",
                "Welcome to nas\nada@nas: Permission denied (publickey).\n",
                Exit::Denied,
            ),
            (
                "error-E1049-unknown",
                "Host key verification failed.\n",
                Exit::Denied,
            ),
            (
                "error-E1049",
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nThe fingerprint is\nSHA256:abc.\n\
                 Host key verification failed.\n",
                Exit::Denied,
            ),
        ] {
            let failure = failure(&nas(), &ended(255, said));
            assert_eq!(failure.exit, exit, "{name}");
            snapshot::check(name, &failure.render());
        }
        assert_eq!(failure(&nas(), &ended(255, "")).code, 1046);
    }

    #[test]
    fn a_program_that_cannot_be_started_says_why() {
        let other = other_kind(
            &nas(),
            "Linux x86_64",
            &ended(67, "instep needs Linux armv7l\n"),
        );
        snapshot::check("error-E1053", &other.render());
        let shell = ended(1, "This account is currently not available.\n");
        snapshot::check("error-E1043", &failure(&nas(), &shell).render());
        let old = ended(2, "error: unrecognized subcommand 'agent'\nUsage: instep\n");
        assert_eq!(failure(&nas(), &old).exit, Exit::Incompatible);
        let full = not_brought(
            &nas(),
            "the command there ended with 1",
            "cat: No space left on device",
        );
        snapshot::check("error-E1047", &full.render());
        assert_eq!(not_kept(&nas(), &ended(126, "noexec")).code, 1047);
        assert_eq!(not_kept(&nas(), &ended(255, "Connection reset")).code, 1046);
    }

    #[test]
    fn both_versions_are_named_where_none_is_common() {
        let e = LinkError::Incompatible {
            ours: Versions { min: 1, max: 2 },
            theirs: Versions { min: 4, max: 5 },
        };
        let failure = broken("nas:notes", &e);
        assert_eq!(failure.exit, Exit::Incompatible);
        snapshot::check("error-E1050", &failure.render());
    }
}
