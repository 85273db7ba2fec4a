//! An ssh server of a test's own: on a port of this machine, with keys and a configuration of its own, for the user who
//! runs the tests, who gets another home there.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use instep_testkit::cli::{Cli, Output, Running};
use instep_testkit::needs::SSHD;
use instep_testkit::scratch::Scratch;

use super::until;

/// The server, and the machine that it stands for. Ended when dropped.
pub(crate) struct Sshd {
    dir: Scratch,
    port: u16,
    more: String,
    server: Option<Child>,
}

/// A port that nobody has and that no connection is given: below those that the system hands out.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::SeqCst) + (std::process::id() % 150) as u16 * 64;
        let port = 20_000 + n % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

impl Sshd {
    /// A machine that is called `nas`, with an empty folder `b` in its home. `more` goes into the server's configuration.
    pub(crate) fn start(more: &str) -> Self {
        let dir = Scratch::new().unwrap();
        let port = free_port();
        for sub in ["home/b", "home/run", "home/bin", "home/tmp"] {
            dir.dir(sub).unwrap();
        }
        for sub in ["home", "home/run"] {
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(dir.path().join(sub), private).unwrap();
        }
        let mut sshd = Self {
            dir,
            port,
            more: more.to_owned(),
            server: None,
        };
        for name in ["host", "key", "other"] {
            let file = sshd.file(name);
            let file = file.to_str().unwrap();
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", file]);
        }
        fs::copy(sshd.file("key.pub"), sshd.file("authorized")).unwrap();
        sshd.know("host");
        sshd.client();
        sshd.begin();
        sshd
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The client takes this for the machine's key.
    pub(crate) fn know(&self, key: &str) {
        let public = fs::read_to_string(self.file(&format!("{key}.pub"))).unwrap();
        let line = format!("[127.0.0.1]:{} {public}", self.port);
        fs::write(self.file("known"), line).unwrap();
    }

    /// The server admits this key alone.
    pub(crate) fn admit(&self, key: &str) {
        fs::copy(self.file(&format!("{key}.pub")), self.file("authorized")).unwrap();
    }

    /// As a user would have it in `~/.ssh/config`, which ssh looks for in the home that the system says.
    fn client(&self) {
        let dir = self.dir.path().display();
        let (port, user) = (self.port, run("id", &["-un"]));
        let config = format!(
            "Host nas\n HostName 127.0.0.1\n Port {port}\n User {user}\n IdentityFile {dir}/key\n \
             IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile {dir}/known\n \
             GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n"
        );
        fs::write(self.file("config"), config).unwrap();
        let script = format!("#!/bin/sh\nexec ssh -F {dir}/config \"$@\"\n");
        fs::write(self.file("ssh"), script).unwrap();
        fs::set_permissions(self.file("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Starts the server (again).
    pub(crate) fn begin(&mut self) {
        let dir = self.dir.path().display();
        let home = self.home();
        let home = home.display();
        let port = self.port;
        let config = format!(
            "{}\nListenAddress 127.0.0.1\nPort {port}\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin yes\nLogLevel ERROR\n\
             SetEnv HOME={home} XDG_RUNTIME_DIR={home}/run TMPDIR={home}/tmp PATH={home}/bin:/usr/bin:/bin LANG=C.UTF-8\n",
            self.more
        );
        fs::write(self.file("sshd_config"), config).unwrap();
        if rustix::process::geteuid().is_root() {
            // What its service makes when the machine starts.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let server = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(self.file("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.file("log")).unwrap())
            .spawn();
        self.server = Some(server.unwrap());
        until("the ssh server listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        let ended = self.server.as_mut().unwrap().try_wait().unwrap();
        let log = fs::read_to_string(self.file("log")).unwrap();
        assert!(ended.is_none(), "the ssh server ended: {log}");
    }

    /// Ends the server and every connection that it serves.
    pub(crate) fn end(&mut self) {
        if let Some(mut server) = self.server.take() {
            for child in children(server.id()) {
                kill(child);
            }
            drop(server.kill());
            drop(server.wait());
        }
    }

    /// The home there.
    pub(crate) fn home(&self) -> PathBuf {
        self.file("home")
    }

    /// Where programs are kept that were brought there.
    pub(crate) fn agents(&self) -> PathBuf {
        self.home().join(".local/share/instep/agents")
    }

    /// Has a program reach it.
    pub(crate) fn reached_by(&self, cli: Cli) -> Cli {
        cli.env("INSTEP_SSH", self.file("ssh"))
    }

    /// Writes a file below the home there.
    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = self.home().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Whether a file below the home there has this text.
    pub(crate) fn has(&self, path: &str, text: &str) -> bool {
        let found = fs::read_to_string(self.home().join(path));
        found.is_ok_and(|found| found == text)
    }

    /// Puts a program into the PATH there.
    pub(crate) fn install(&self, name: &str, script: &str) {
        self.put(&format!("bin/{name}"), script);
        let at = self.home().join("bin").join(name);
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Makes a folder in the home there.
    pub(crate) fn dir(&self, path: &str) {
        fs::create_dir_all(self.home().join(path)).unwrap();
    }

    /// The program, as whoever sits at that machine runs it.
    fn there(&self) -> Cli {
        let home = self.home();
        let cli = Cli::at("env").unwrap().env("HOME", &home);
        let cli = cli.env("XDG_RUNTIME_DIR", home.join("run"));
        let dirs = [
            ("XDG_CONFIG_HOME", ".config"),
            ("XDG_DATA_HOME", ".local/share"),
            ("XDG_STATE_HOME", ".local/state"),
            ("XDG_CACHE_HOME", ".cache"),
        ];
        let set = |cli: Cli, (name, dir): (&str, &str)| cli.env(name, home.join(dir));
        dirs.into_iter().fold(cli, set)
    }

    fn command<'a>(home: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        let program = ["-C", home, env!("CARGO_BIN_EXE_instep")];
        program.into_iter().chain(args.iter().copied()).collect()
    }

    /// Starts a session there.
    pub(crate) fn session(&self, args: &[&str]) -> Running {
        let home = self.home();
        self.there()
            .spawn(&Self::command(home.to_str().unwrap(), args))
    }

    /// Runs a command there.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let home = self.home();
        self.there()
            .run(&Self::command(home.to_str().unwrap(), args))
    }

    /// The processes that run a program that was brought there.
    pub(crate) fn running(&self) -> Vec<u32> {
        let agents = self.agents();
        let of_ours = |pid: &u32| {
            let exe = fs::read_link(format!("/proc/{pid}/exe"));
            exe.is_ok_and(|exe| exe.starts_with(&agents))
        };
        processes().filter(of_ours).collect()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.end();
        self.running().into_iter().for_each(kill);
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let all = fs::read_dir(Path::new("/proc")).unwrap();
    all.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
}

/// A process's own children.
fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    processes().filter(is_child).collect()
}

/// Ends a process at once.
pub(crate) fn kill(pid: u32) {
    let script = ["-c", "kill -s KILL \"$1\"", "sh", &pid.to_string()];
    drop(
        Command::new("sh")
            .args(script)
            .stderr(Stdio::null())
            .status(),
    );
}
