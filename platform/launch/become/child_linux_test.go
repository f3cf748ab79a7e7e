package become

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/account"
)

// built is the program for one kind of machine, and how to run it here.
type built struct {
	file string
	argv []string
	as   binary.ByteOrder
}

// compiled makes the program for this machine.
func compiled(t testing.TB) built {
	t.Helper()
	p := compileWith(t, cmp.Or(os.Getenv("CC"), "cc"))
	p.argv, p.as = []string{p.file}, binary.NativeEndian
	return p
}

func compileWith(t testing.TB, cc string) built {
	t.Helper()
	if _, err := exec.LookPath(cc); err != nil {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatalf("needs %s; run: sudo make need-test", cc)
		}
		t.Skipf("needs %s; run: sudo make need-test", cc)
	}
	dir, err := os.MkdirTemp("", "become") // which other users can enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, Program)
	for _, source := range []string{"compile", "become.c", "sys.h"} { // so that go test sees them change
		if _, err := os.ReadFile("child/" + source); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("child/compile", program)
	cmd.Env = append(os.Environ(), "CC="+cc)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return built{file: program}
}

// told runs the program without any right, gives it the octets and the last word, and returns what it says before it ends.
func (p built) told(t testing.TB, order []byte) (Report, error) {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env, cmd.ExtraFiles = []string{}, []*os.File{theirs}
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slow := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() }) // shows as a signal
	defer slow.Stop()
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Write(append(bytes.Clone(order), Go)); err != nil && !errors.Is(err, syscall.EPIPE) {
		t.Fatal(err)
	}
	if err := syscall.Shutdown(pair[0], syscall.SHUT_WR); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		t.Fatal(err)
	}
	r, err := readAnswer(ours, p.as)
	if exit, ok := errors.AsType[*exec.ExitError](cmd.Wait()); !ok || exit.ExitCode() != 125 {
		t.Errorf("it ended with %v, want exit code 125", exit)
	}
	return r, err
}

// order is one that is whole.
func order() *Order {
	return &Order{
		Account: account.Account{Name: "a", UID: 4200, GID: 4200, Groups: []account.Group{{GID: 4200}, {GID: 4400}}, OwnGroup: true},
		GID:     4400, Argv: []string{"true", "x", ""}, Env: []string{"PATH=/usr/bin:relative::/bin", "A=b"}, Dir: "/", Umask: 0o22,
		Pin: &Pin{Major: 1, Minor: 2, Ino: 3, Size: 4, CTime: 5, CNsec: 6}, Ignored: 1<<12 | 1<<63,
	}
}

func encoded(t testing.TB, o *Order) []byte {
	t.Helper()
	text, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestMalformed: an order that is not whole is refused before anything is done.
func TestMalformed(t *testing.T) { malformed(t, compiled(t)) }

// TestMalformedS390X: the same on a big-endian machine.
func TestMalformedS390X(t *testing.T) {
	program := compileWith(t, "s390x-linux-gnu-gcc")
	qemu, err := exec.LookPath("qemu-s390x-static")
	if err != nil {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal("needs qemu-s390x-static; run: sudo make need-test")
		}
		t.Skip("needs qemu-s390x-static; run: sudo make need-test")
	}
	program.argv, program.as = []string{qemu, program.file}, binary.BigEndian
	malformed(t, program)
}

func malformed(t *testing.T, program built) {
	good, err := order().encode(program.as)
	if err != nil {
		t.Fatal(err)
	}
	// Without any right, the first step that needs one says that the order was believed.
	if r, err := program.told(t, good); err != nil || r.Step != "groups" || r.Errno != syscall.EPERM {
		t.Errorf("a whole order: %+v, %v", r, err)
	}
	at := map[string]int{"magic": 0, "length": 4, "uid": 8, "gid": 12, "umask": 20, "flags": 24, "nice": 28, "limits": 32, "groups": 36, "paths": 40, "args": 44, "envs": 48}
	set := func(at int, to uint32) func([]byte) []byte {
		return func(b []byte) []byte {
			program.as.PutUint32(b[at:], to)
			return b
		}
	}
	groups := binary.Size(header{})
	for name, change := range map[string]func(b []byte) []byte{
		"nothing":                 func([]byte) []byte { return nil },
		"half a header":           func(b []byte) []byte { return b[:40] },
		"half an order":           func(b []byte) []byte { return b[:len(b)-3] },
		"another magic":           set(at["magic"], 1),
		"a length below a header": set(at["length"], 80),
		"a length above all":      set(at["length"], MaxOrder+1),
		"an endless length":       set(at["length"], 1<<32-1),
		"uid -1":                  set(at["uid"], 1<<32-1),
		"a gid of no group":       set(at["gid"], 4201),
		"umask":                   set(at["umask"], 0o1000),
		"an unknown flag":         set(at["flags"], 8),
		"nice":                    set(at["nice"], 20),
		"limits":                  set(at["limits"], 1),
		"too many limits":         set(at["limits"], 17),
		"too many groups":         set(at["groups"], 65537),
		"one group more":          set(at["groups"], 3),
		"no group":                set(at["groups"], 0),
		"one path more":           set(at["paths"], 3),
		"no argument":             set(at["args"], 0),
		"one argument less":       set(at["args"], 2),
		"one variable more":       set(at["envs"], 3),
		"endless variables":       set(at["envs"], 1<<32-1),
		"groups not in order":     set(groups, 4500),
		"a group twice":           set(groups, 4400),
		"no NUL at the end":       func(b []byte) []byte { b[len(b)-1] = 'x'; return b },
	} {
		if r, err := program.told(t, change(bytes.Clone(good))); err != nil || r.Step != "orders" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// FuzzOrder wants the program to end with a failed step whatever it is told, when it has no right to do more.
func FuzzOrder(f *testing.F) {
	program := compiled(f)
	f.Add(encoded(f, order()))
	o := order()
	o.Pin, o.Passed, o.Argv, o.Env, o.Account.OwnGroup = nil, true, []string{"./x"}, nil, false
	f.Add(encoded(f, o))
	f.Add([]byte("1owb"))
	f.Fuzz(func(t *testing.T, octets []byte) {
		if r, err := program.told(t, octets); err != nil || !r.Failed() {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// TestBounds: what is too large for the program is not sent to it, and what is as large as may be it takes.
func TestBounds(t *testing.T) {
	program := compiled(t)
	o := order()
	o.Argv = append(o.Argv, strings.Repeat("x", MaxOrder))
	if _, err := o.Encode(); !errors.Is(err, ErrTooLarge) || !errors.Is(err, syscall.E2BIG) {
		t.Errorf("too long: %v", err)
	}
	o = order()
	o.Env = make([]string, maxTexts)
	if _, err := o.Encode(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many: %v", err)
	}
	o.Env = make([]string, maxTexts-len(o.Argv)-3) // two paths and a directory
	if r, err := program.told(t, encoded(t, o)); err != nil || r.Step != "groups" {
		t.Errorf("as many as may be: %+v, %v", r, err)
	}
	o = order()
	o.Argv = append(o.Argv, strings.Repeat("x", MaxOrder-len(encoded(t, o))-1))
	if r, err := program.told(t, encoded(t, o)); err != nil || r.Step != "groups" {
		t.Errorf("as long as may be: %+v, %v", r, err)
	}
}

// TestProgram looks at the file: nothing but the kernel is needed to run it, and nothing in it is both written and
// executed.
func TestProgram(t *testing.T) {
	file, err := elf.Open(compiled(t).file)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if file.Type != elf.ET_DYN {
		t.Errorf("type %v: it lies at the same place each time", file.Type)
	}
	if libraries, err := file.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("libraries %v, %v", libraries, err)
	}
	stack := false
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it has an interpreter")
		}
		if p.Flags&elf.PF_W != 0 && p.Flags&elf.PF_X != 0 {
			t.Errorf("segment %v can be written and executed", p.Type)
		}
		stack = stack || p.Type == elf.PT_GNU_STACK
	}
	if !stack {
		t.Error("its stack can be executed")
	}
	for _, s := range file.Sections {
		if (s.Type == elf.SHT_RELA || s.Type == elf.SHT_REL) && s.Size > 0 {
			t.Errorf("section %s: nobody relocates it", s.Name)
		}
	}
}

// FuzzAnswer wants every answer to be understood or refused.
func FuzzAnswer(f *testing.F) {
	whole := func(a answer) []byte {
		text, err := binary.Append(nil, binary.NativeEndian, a)
		if err != nil {
			f.Fatal(err)
		}
		return text
	}
	f.Add([]byte{})
	f.Add(whole(answer{}))
	f.Add(append(whole(answer{}), whole(answer{ByPath: 1})...))
	for why := range uint32(20) {
		f.Add(whole(answer{Step: 14, Errno: 13, Why: why, A: 1, B: 1<<32 - 1, Element: [232]byte{'x'}}))
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		r, err := ReadAnswer(bytes.NewReader(octets))
		if err == nil && r.Failed() && r.Reason == "" || err != nil && r != (Report{}) {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// TestAnswers: an announcement and the end are an exec; the end alone is not.
func TestAnswers(t *testing.T) {
	size := binary.Size(answer{})
	announced := make([]byte, size)
	if r, err := ReadAnswer(bytes.NewReader(announced)); err != nil || r.Failed() || r.ByPath {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := ReadAnswer(bytes.NewReader(nil)); !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
	if _, err := ReadAnswer(bytes.NewReader(announced[1:])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if r, err := ReadAnswer(bytes.NewReader(make([]byte, 10*size))); err == nil {
		t.Errorf("it announced ten times: %+v", r)
	}
}

// begun is the program with root's rights and an order, and out what it writes.
func (p built) begun(t *testing.T, o *Order, out io.Writer) (talk *os.File, cmd *exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal("needs root; run: sudo make test")
		}
		t.Skip("needs root; run: sudo make test")
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	talk, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	t.Cleanup(func() { _ = talk.Close() })
	left, err := os.Open("/") // one that the launcher left open
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	cmd = exec.Command(p.file)
	cmd.Env, cmd.Stdout, cmd.ExtraFiles = []string{}, out, []*os.File{theirs, nil, left}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slow := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() }) // shows as a signal
	t.Cleanup(func() { slow.Stop() })
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := talk.Write(encoded(t, o)); err != nil {
		t.Fatal(err)
	}
	return talk, cmd
}

// noExecveat reports that this is qemu-user before 8.0, which has no execveat(2): the process was the other user, proved
// it, and had opened the command.
func noExecveat(r Report, err error) bool {
	return runtime.GOARCH == "s390x" && err == nil && r.Step == "exec" && r.Errno == syscall.ENOSYS
}

// TestBecomes: with root's rights the order is carried out, to the command's own words.
func TestBecomes(t *testing.T) {
	nice := 7
	o := order()
	o.Pin, o.Nice, o.Limits = nil, &nice, []Limit{{Resource: syscall.RLIMIT_NOFILE, Soft: 50, Hard: 60}}
	o.Argv = []string{"sh", "-c", "ulimit -Sn; ulimit -Hn; nice; umask; id -u; id -g; id -G; pwd; cat /proc/self/oom_score_adj; echo $A; ls /proc/$$/fd"}
	var out strings.Builder
	talk, cmd := compiled(t).begun(t, o, &out)
	if _, err := talk.Write([]byte{Go}); err != nil {
		t.Fatal(err)
	}
	r, err := ReadAnswer(talk)
	if noExecveat(r, err) {
		_ = cmd.Wait() // with 125
		return
	}
	if err != nil || r.Failed() || r.ByPath {
		t.Errorf("%+v, %v", r, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got, want := out.String(), "50\n60\n7\n0022\n4200\n4400\n4400 4200\n/\n0\nb\n0\n1\n2\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLastWord: without it the process does not become the account, and executes nothing, whatever the order says.
func TestLastWord(t *testing.T) {
	program := compiled(t)
	for name, word := range map[string]string{"none": "", "another": "G"} {
		o := order()
		o.Pin, o.Argv = nil, []string{"echo", "executed"}
		var out strings.Builder
		talk, cmd := program.begun(t, o, &out)
		waiting := []unix.PollFd{{Fd: int32(talk.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(waiting, 200); n != 0 {
			t.Errorf("%s: it does not wait: %v", name, err)
		}
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)); err != nil || !strings.Contains(string(status), "\nUid:\t0\t0\t0\t0\n") {
			t.Errorf("%s: while it waits: %v, %s", name, err, status)
		}
		if _, err := talk.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Shutdown(int(talk.Fd()), unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		if r, err := ReadAnswer(talk); err != nil || r.Step != "orders" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if err := cmd.Wait(); err == nil || out.String() != "" {
			t.Errorf("%s: %v, and it says %q", name, err, out.String())
		}
	}
}
