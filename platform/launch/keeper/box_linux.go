package keeper

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// boxes keeps the processes of each job together: in a cgroup of its own below root, or, without cgroups, by the
// session that the job leads. A process leaves a session by setsid; it cannot leave a cgroup.
type boxes struct {
	root string // "" without cgroups
	why  string // then: the reason
}

// box is what holds one job.
type box struct {
	dir string // the cgroup; "" without
	pid int    // the job's first process, which leads its session; 0 before it is started
}

func (b *boxes) String() string {
	if b.root != "" {
		return "cgroup " + b.root
	}
	return "session: " + b.why
}

// openBoxes finds out how jobs can be contained, and removes what an earlier launcher with the same state directory
// left and nobody is in.
func openBoxes(cgroupRoot, stateDir string) *boxes {
	b := &boxes{}
	base, err := cgroupBase(cgroupRoot)
	if err == nil {
		b.root = filepath.Join(base, rootName(stateDir))
		err = b.try()
	}
	if err != nil {
		b.root, b.why = "", "no cgroup v2 to use: "+err.Error()
	}
	return b
}

// rootName is the same for every launcher with that state directory, and for no other.
func rootName(stateDir string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(stateDir)))
	return "batchwarden-jobs-" + hex.EncodeToString(sum[:4])
}

// try makes the root and one box in it, and removes the box again.
func (b *boxes) try() error {
	if err := os.MkdirAll(b.root, 0o755); err != nil {
		return err
	}
	if err := onCgroup2(b.root); err != nil {
		return errors.Join(err, os.Remove(b.root))
	}
	b.sweep(nil)
	trial := filepath.Join(b.root, "trial")
	if err := os.Mkdir(trial, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Remove(trial)
}

// sweep removes boxes that nobody is in, and what jobs made inside them, all but those in use.
func (b *boxes) sweep(inUse map[string]bool) {
	entries, err := os.ReadDir(b.root)
	if b.root == "" || err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() && !inUse[e.Name()] {
			removeCgroup(filepath.Join(b.root, e.Name()))
		}
	}
}

// close removes what is empty; jobs that go on keep theirs.
func (b *boxes) close() {
	if b.root != "" {
		b.sweep(nil)
		_ = os.Remove(b.root) // busy while a job is in it
	}
}

// removeCgroup removes dir and the cgroups in it that are empty.
func removeCgroup(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeCgroup(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir) // busy: somebody is in it; housekeeping tries again
}

func onCgroup2(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("%q is not in a cgroup2 file system", dir)
	}
	return nil
}

// cgroupBase is the directory that the jobs' root goes into.
func cgroupBase(configured string) (string, error) {
	if configured != "" && configured != "auto" {
		return configured, nil
	}
	mount, within, err := cgroupMount()
	if err != nil {
		return "", err
	}
	own, err := ownCgroup()
	if err != nil {
		return "", err
	}
	below, err := filepath.Rel(within, own)
	if err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return "", fmt.Errorf("the launcher's cgroup %q is not below the mounted %q", own, within)
	}
	return filepath.Join(mount, below), nil
}

// cgroupMount finds where a cgroup2 file system is mounted, and which of its directories that shows.
func cgroupMount() (mount, within string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(text)) {
		// id parent major:minor root mountpoint options... - type source superoptions
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) >= 5 && len(kind) >= 1 && kind[0] == "cgroup2" {
			return unescape(fields[4]), unescape(fields[3]), nil
		}
	}
	return "", "", errors.New("none is mounted")
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func ownCgroup() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("the launcher is in none")
}

// make makes the box of a job before anything of the job exists.
func (b *boxes) make(serial uint64) (*box, error) {
	if b.root == "" {
		return &box{}, nil
	}
	dir := filepath.Join(b.root, strconv.FormatUint(serial, 10))
	return &box{dir: dir}, unix.Mkdir(dir, 0o755)
}

// nobody reports whether the kernel says that no process is in the box's cgroup or in one inside it.
func (b *box) nobody() bool {
	if b.dir == "" {
		return false
	}
	fd, err := unix.Open(b.dir+"/cgroup.events", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var text [256]byte
	n, err := unix.Read(fd, text[:])
	return err == nil && bytes.Contains(text[:n], []byte("populated 0\n"))
}

// processes lists who is in the box, the job's first process while it runs included.
func (b *box) processes() []int {
	if b.dir == "" {
		return sessionOf(b.pid)
	}
	return cgroupProcesses(b.dir, nil)
}

// cgroupProcesses lists a cgroup and those inside it: root's jobs may have made some.
func cgroupProcesses(dir string, pids []int) []int {
	f, err := os.Open(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return pids // gone
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if pid, err := strconv.Atoi(lines.Text()); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	_ = f.Close() // only read
	entries, err := os.ReadDir(dir)
	if err != nil {
		return pids
	}
	for _, e := range entries {
		if e.IsDir() {
			pids = cgroupProcesses(filepath.Join(dir, e.Name()), pids)
		}
	}
	return pids
}

// sessionOf lists the processes of a session. Its leader must not have been waited for: until then, and while one of
// the session lives, nobody else can have the number.
func sessionOf(leader int) (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil || leader == 0 {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if sid, state, ok := statOf(pid); ok && sid == leader && state != 'Z' && state != 'X' {
			pids = append(pids, pid)
		}
	}
	return pids
}

// statOf reads session and state from /proc/PID/stat.
func statOf(pid int) (sid int, state byte, ok bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, false
	}
	// The name in brackets may contain anything, brackets too.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 4 {
		return 0, 0, false
	}
	sid, err = strconv.Atoi(string(fields[3]))
	return sid, fields[0][0], err == nil
}

// signal sends sig to everybody in the box once.
func (b *box) signal(sig unix.Signal) {
	for _, pid := range b.processes() {
		_ = unix.Kill(pid, sig) // gone meanwhile
	}
}

// stop ends everybody in the box at once, the job's first process included.
func (b *box) stop() {
	// One write ends a whole cgroup, those included that it forks meanwhile; Linux before 5.14 lacks it.
	if b.dir == "" || os.WriteFile(filepath.Join(b.dir, "cgroup.kill"), []byte("1"), 0) != nil {
		b.signal(unix.SIGKILL)
	}
}

// clear ends whom the job's first process left behind in the box, and reports how many there were
// and whether they are gone. A process that hangs in the kernel can outlive it.
func (b *box) clear(patience time.Duration) (others int, gone bool) {
	rest := func() []int {
		return slices.DeleteFunc(b.processes(), func(pid int) bool { return pid == b.pid })
	}
	if b.nobody() {
		return 0, true
	}
	left := rest()
	if len(left) == 0 {
		return 0, true
	}
	others = len(left)
	until := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		b.stop()
		if left = rest(); len(left) == 0 {
			return others, true
		}
		if time.Now().After(until) {
			return others, false
		}
		time.Sleep(wait)
	}
}

// remove removes the box; nobody should be in it.
func (b *box) remove() {
	if b.dir != "" && unix.Rmdir(b.dir) != nil {
		removeCgroup(b.dir)
	}
}

// bootID names the boot of this machine.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(text))
}
