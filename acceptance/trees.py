"""Looks at trees on its own: shares no code with the program, so that one mistake cannot hide in both.

Names are bytes throughout. What is compared: names, kinds, permission bits, link targets, contents, and the
modification times of files and links in nanoseconds; directories have none that is kept equal."""
import fnmatch
import hashlib
import os
import re
import stat

OURS = b".instep"
TOKEN = re.compile(rb"TOK-[0-9a-zA-Z]+-[0-9]+-[0-9a-f]{8}")

# What is left out unless the user says otherwise: litter of systems and temporaries of editors.
LITTER = re.compile("|".join(fnmatch.translate(p) for p in (
    ".DS_Store", "._*", ".AppleDouble", ".AppleDB", ".AppleDesktop", ".LSOverride", ".Spotlight-V100", ".Trashes", ".fseventsd",
    ".TemporaryItems", ".DocumentRevisions-V100", ".com.apple.timemachine.donotpresent", ".VolumeIcon.icns", "[Tt]humbs.db",
    "[Tt]humbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "[Dd]esktop.ini", "$RECYCLE.BIN", "System Volume Information",
    ".directory", ".Trash-*", ".nfs0*", ".fuse_hidden*", "lost+found", "*.swp", "*.swo", "*.swx", "4913", "#*#", ".#*", "*~",
    ".~lock.*#", "~$*", ".gedit-save-*", ".goutputstream-*", ".kate-swp", ".*.kate-swp", "*___jb_tmp___", "*___jb_old___",
    "*___jb_bak___", "*.part", "*.crdownload")))


def litter(path):
    """Whether a path, or a folder above it, is left out by default."""
    return any(LITTER.match(os.fsdecode(part)) for part in path.split(b"/"))


def listing(root, content=True):
    """{path: (kind, mode, mtime_ns or None, what is inside)}; a name that vanishes meanwhile is left out."""
    root, out, todo = os.fsencode(root), {}, [b""]
    while todo:
        folder = todo.pop()
        try:
            entries = list(os.scandir(os.path.join(root, folder) if folder else root))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if not folder and entry.name == OURS:
                continue
            path = os.path.join(folder, entry.name) if folder else entry.name
            try:
                row = look(os.path.join(root, path), content)
            except (FileNotFoundError, NotADirectoryError):
                continue
            out[path] = row
            if row[0] == "dir":
                todo.append(path)
    return out


def look(full, content=True):
    st = os.lstat(full)
    mode = stat.S_IMODE(st.st_mode) & 0o777
    if stat.S_ISDIR(st.st_mode):
        return ("dir", mode, None, None)
    if stat.S_ISLNK(st.st_mode):
        return ("link", None, st.st_mtime_ns, os.readlink(full))
    if stat.S_ISREG(st.st_mode):
        return ("file", mode, st.st_mtime_ns, digest(full) if content else st.st_size)
    return ("special", None, None, None)


def digest(full):
    h = hashlib.blake2b(digest_size=16)
    with open(full, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.digest()


def differences(roots, content=True, ignore=litter):
    """Sentences about what is not the same in all roots; [] when they are equal. Special files are nobody's."""
    trees = [{p: r for p, r in listing(root, content).items() if r[0] != "special" and not ignore(p)} for root in roots]
    out = []
    for path in sorted(set().union(*trees)):
        rows = [tree.get(path) for tree in trees]
        if any(row != rows[0] for row in rows[1:]):
            out.append(f"{path!r}: " + " | ".join(describe(row) for row in rows))
    return out


def describe(row):
    if row is None:
        return "-"
    kind, mode, mtime, inside = row
    parts = [kind]
    if mode is not None:
        parts.append(f"{mode:04o}")
    if mtime is not None:
        parts.append(str(mtime))
    if isinstance(inside, bytes):
        parts.append(repr(inside) if kind == "link" else inside.hex()[:8])
    elif inside is not None:
        parts.append(f"{inside} B")
    return " ".join(parts)


def audit(root):
    """Everything that a write would change, of every object including the root: to show that nothing was touched."""
    out = {}
    for base, dirs, files in os.walk(os.fsencode(root)):
        for name in [b"", *dirs, *files]:
            full = os.path.join(base, name) if name else base
            st = os.lstat(full)
            out[full] = (st.st_ino, st.st_mode, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
    return out


def tokens_in(folder, found=None):
    """Every token in every regular file below a folder, with one place where it is."""
    found = {} if found is None else found
    for base, _, files in os.walk(os.fsencode(folder)):
        for name in files:
            full = os.path.join(base, name)
            try:
                if not stat.S_ISREG(os.lstat(full).st_mode):
                    continue
                with open(full, "rb") as f:
                    data = f.read()
            except FileNotFoundError:
                continue
            for token in TOKEN.findall(data):
                found.setdefault(token, full)
    return found


def kept_tokens(roots):
    """Tokens in the trees, the version stores and the trashes: what a user can get back. Not what is staged."""
    found = {}
    for root in map(os.fsencode, roots):
        for entry in os.scandir(root):
            if entry.name == OURS:
                for part in (b"versions", b"trash"):
                    if os.path.isdir(os.path.join(entry.path, part)):
                        tokens_in(os.path.join(entry.path, part), found)
            elif entry.is_dir(follow_symlinks=False):
                tokens_in(entry.path, found)
            elif entry.is_file(follow_symlinks=False):
                with open(entry.path, "rb") as f:
                    for token in TOKEN.findall(f.read()):
                        found.setdefault(token, entry.path)
    return found
