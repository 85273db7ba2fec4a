//! Thin runners: they start the simulator, or a scenario against the real program, and pass on how it ended.

use std::path::Path;
use std::process::Command;

/// The simulator, optimised, with its own arguments.
pub(crate) fn sim(top: &Path, args: &[String]) -> Result<(), String> {
    optimised(top, "instep-sim", args, "simulator")
}

/// Every script of a few edits on the planner, optimised.
pub(crate) fn exhaust(top: &Path, args: &[String]) -> Result<(), String> {
    let ops = match args {
        [] => "3",
        [flag, ops] if flag == "--ops" && ops.parse::<u8>().is_ok() => ops,
        _ => return Err("exhaust takes --ops N".into()),
    };
    let mut cargo = cargo(top);
    cargo.env("EXHAUST_OPS", ops).args([
        "test",
        "--release",
        "--locked",
        "--quiet",
        "--package",
        "instep-core",
        "--test",
        "planner",
        "exhaust",
        "--",
        "--nocapture",
    ]);
    succeed(&mut cargo, "exhaust")
}

/// Hostile bytes into the decoders, optimised.
pub(crate) fn fuzz(top: &Path, args: &[String]) -> Result<(), String> {
    optimised(top, "instep-fuzz", args, "fuzz")
}

/// The program of one of our crates, optimised.
fn optimised(top: &Path, package: &str, args: &[String], what: &str) -> Result<(), String> {
    let mut cargo = cargo(top);
    cargo.args(["run", "--release", "--locked", "--quiet"]);
    cargo.args(["--package", package, "--"]);
    succeed(cargo.args(args), what)
}

/// One scenario against the real program.
pub(crate) fn acceptance(top: &Path, name: &str, args: &[String]) -> Result<(), String> {
    if std::env::var_os("INSTEP").is_none() {
        let mut build = cargo(top);
        succeed(
            build.args(["build", "--release", "--locked", "--bin", "instep"]),
            "build instep",
        )?;
    }
    let mut python = Command::new("python3");
    python
        .current_dir(top)
        .arg(format!("acceptance/{name}.py"))
        .args(args);
    succeed(&mut python, name)
}

/// `accept NAME... | all | list`; what starts with a dash goes to each scenario.
pub(crate) fn accept(top: &Path, args: &[String]) -> Result<(), String> {
    let (options, names): (Vec<String>, Vec<String>) =
        args.iter().cloned().partition(|arg| arg.starts_with('-'));
    let known = scenarios(top)?;
    let wanted = match names.first().map(String::as_str) {
        None | Some("list") => {
            println!("{}", known.join("\n"));
            return Ok(());
        }
        Some("all") => known,
        Some(_) => names,
    };
    let mut failed = Vec::new();
    for name in wanted {
        if let Err(text) = acceptance(top, &name, &options) {
            failed.push(text);
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.join("\n"))
    }
}

/// `trials NAME [--OPTION VALUE]...`: the long tests of that name, each option as a variable for them.
/// `--only WORDS...` does one trial again.
pub(crate) fn trials(top: &Path, args: &[String]) -> Result<(), String> {
    let (name, options) = args.split_first().ok_or("which trials? kills")?;
    let settings = settings(name, options)?;
    let again = settings.iter().any(|(key, _)| key.ends_with("_ONLY"));
    let mut cargo = cargo(top);
    cargo.args(["test", "--locked", "--package", "instep-trials"]);
    cargo.args(["--test", name, "--", "--ignored", "--nocapture"]);
    cargo.args(if again {
        &["--exact", "only"][..]
    } else {
        &["--skip", "only"]
    });
    succeed(cargo.envs(settings), name)
}

/// Options as the variables that trials read: `--pairs 9` of `kills` is `INSTEP_KILLS_PAIRS=9`.
fn settings(name: &str, options: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut left = options.iter();
    while let Some(option) = left.next() {
        let key = option
            .strip_prefix("--")
            .ok_or_else(|| format!("{option} is no option"))?;
        let value = match key {
            "only" => left.by_ref().cloned().collect::<Vec<_>>().join(" "),
            _ => left
                .next()
                .ok_or_else(|| format!("{option} of what?"))?
                .clone(),
        };
        let key = key.replace('-', "_");
        found.push((format!("INSTEP_{name}_{key}").to_uppercase(), value));
    }
    Ok(found)
}

/// The scenarios that there are, by name.
fn scenarios(top: &Path) -> Result<Vec<String>, String> {
    let folder = top.join("acceptance");
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("list acceptance: {e}"))?;
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let scenario = |name: String| {
        let stem = name.strip_suffix(".py")?;
        let numbered = stem
            .strip_prefix('s')?
            .starts_with(|c: char| c.is_ascii_digit());
        numbered.then(|| stem.to_owned())
    };
    let mut scenarios: Vec<String> = names.filter_map(scenario).collect();
    scenarios.sort();
    Ok(scenarios)
}

pub(crate) fn cargo(top: &Path) -> Command {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo.current_dir(top);
    cargo
}

pub(crate) fn succeed(command: &mut Command, what: &str) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("start {what}: {e}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{what} failed: {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_option_of_trials_is_lost_on_its_way() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let found = settings(
            "kills",
            &words("--pairs 9 --at-once 2 --only edits taken:1"),
        );
        let expected = [
            pair("INSTEP_KILLS_PAIRS", "9"),
            pair("INSTEP_KILLS_AT_ONCE", "2"),
            pair("INSTEP_KILLS_ONLY", "edits taken:1"),
        ];
        assert_eq!(found.as_deref(), Ok(&expected[..]));
        assert!(settings("kills", &words("pairs 9")).is_err());
        assert!(settings("kills", &words("--pairs")).is_err());
    }
}
