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
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// boxes keeps the processes of each job together: in a cgroup of its own below root, which no process can leave, or,
// without cgroups, by what processes have in common; see unboxed.
type boxes struct {
	root string // "" without cgroups
	why  string // then: the reason
	unboxed
}

// box is what holds one job.
type box struct {
	boxes *boxes
	dir   string // the cgroup; "" without
	pid   int    // the job's first process, which leads its session; 0 before it is started
	uid   uint32 // the job's user; without a cgroup

	mu    sync.Mutex // guards the next
	born  time.Duration
	audit uint32 // its audit session; 0: none
}

func (b *boxes) String() string {
	if b.root != "" {
		return "cgroup " + b.root
	}
	return "session, subreaper: " + b.why
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
		if err := b.reapFor(); err != nil {
			b.why += "; " + err.Error()
		}
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
		return &box{boxes: b}, nil
	}
	dir := filepath.Join(b.root, strconv.FormatUint(serial, 10))
	return &box{boxes: b, dir: dir}, unix.Mkdir(dir, 0o755)
}

// holds says whose job will be in the box.
func (b *box) holds(uid uint32) {
	if b.dir == "" {
		b.uid = uid
		b.boxes.enter(b)
	}
}

// last is the highest number of a box that there is.
func (b *boxes) last() (serial uint64) {
	entries, _ := os.ReadDir(b.root) // without cgroups there are none
	for _, e := range entries {
		n, _ := strconv.ParseUint(e.Name(), 10, 64) // one of another name is not a job's
		serial = max(serial, n)
	}
	return serial
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
		return b.members()
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

// clear ends everybody in the box but the first process, which was seen to end, and reports how many there were and
// whether they are gone. A process that hangs in the kernel can outlive it. With first 0 everybody is ended.
func (b *box) clear(first int, patience time.Duration) (others int, gone bool) {
	rest := func() []int {
		return slices.DeleteFunc(b.processes(), func(pid int) bool { return pid == first })
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
		if b.dir == "" {
			for _, pid := range left {
				_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // most have another parent, or have not ended
			}
		}
		if left = rest(); len(left) == 0 {
			return others, true
		}
		if time.Now().After(until) {
			return others, false
		}
		time.Sleep(wait)
	}
}

// cpu is what all processes that ever were in the box have used; 0 without a cgroup.
func (b *box) cpu() time.Duration {
	if b.dir == "" {
		return 0
	}
	text, err := os.ReadFile(filepath.Join(b.dir, "cpu.stat"))
	if err != nil {
		return 0
	}
	var usec int64
	if _, err := fmt.Sscanf(string(text), "usage_usec %d", &usec); err != nil {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// remove removes the box; nobody should be in it.
func (b *box) remove() {
	switch {
	case b.dir == "":
		b.boxes.leave(b)
	case unix.Rmdir(b.dir) != nil:
		removeCgroup(b.dir)
	}
}
