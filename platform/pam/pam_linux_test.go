package pam

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/trial"
)

const (
	program = Program("/mnt/bin/batchwarden-pam")
	witness = "/mnt/witness" // what ran, a line each
	right   = "correct horse 77"
	hash    = "$6$abcdefgh$dkWLBTh0bJhX0RkOe8ZFkohyHhmi14vmNQkc7q/n2tfIqcYuA0v2MzdtUJvOOzULMbuONtsfw6QiOKbN1EW5q0"

	holdEnv = "BATCHWARDEN_PAM_HOLD" // this binary opens a session, says so, and waits
)

func TestMain(m *testing.M) {
	if job := os.Getenv(holdEnv); job != "" {
		os.Exit(holder(job))
	}
	os.Exit(trial.Main(m))
}

// today is so many days after the beginning of 1970.
var today = time.Now().Unix() / 86400

func furnished(t testing.TB) {
	t.Helper()
	trial.NeedRoot(t)
	if _, err := os.Stat(string(program)); err != nil {
		if err := os.MkdirAll("/mnt/bin", 0o755); err != nil {
			t.Fatal(err)
		}
		trial.Compile(t, "helper/compile", string(program))
		trial.Compile(t, "cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", "/mnt/bin/pam_scan.so", "testdata/pam_scan.c", "-lpam")
	}
	var passwd, shadow strings.Builder
	for i, a := range []struct{ name, password, rest string }{
		{"root", "*", ":0:99999:7:::"},
		{"payroll", hash, ":0:99999:7:::"},
		{"nopassword", "!", ":0:99999:7:::"},
		{"star", "*", ":0:99999:7:::"},
		{"locked", "!" + hash, ":0:99999:7:::"},
		{"expired", hash, fmt.Sprintf(":0:99999:7::%d:", today-1)},
		{"tomorrow", hash, fmt.Sprintf(":0:99999:7::%d:", today+1)},
		{"oldpassword", hash, ":0:10:7:::"},
		{"never", hash, ":0:99999:7:::"},
	} {
		changed := today
		if a.name == "oldpassword" {
			changed = today - 100
		}
		uid := 0
		if i > 0 {
			uid = 4000 + i
		}
		fmt.Fprintf(&passwd, "%s:x:%d:%d::/mnt:/bin/sh\n", a.name, uid, uid)
		fmt.Fprintf(&shadow, "%s:%s:%d%s\n", a.name, a.password, changed, a.rest)
	}
	put(t, "/etc/passwd", passwd.String())
	put(t, "/etc/shadow", shadow.String())
	put(t, "/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\n")
	put(t, "/etc/security/time.conf", "batch;*;never;!Al0000-2400\n")
	put(t, "/mnt/limits.conf", "* soft nofile 333\n* hard nofile 444\npayroll soft core 0\npayroll - fsize 7\n")
	put(t, "/mnt/env.conf", "BATCH_REGION DEFAULT=north\n")
	put(t, "/mnt/tell", "#!/bin/sh\necho $PAM_TYPE $PAM_SERVICE $PAM_USER $PAM_RUSER $PAM_TTY >>"+witness+"\n")
	if err := errors.Join(os.Chmod("/mnt/tell", 0o755), os.RemoveAll(witness), os.RemoveAll("/etc/nologin")); err != nil {
		t.Fatal(err)
	}
	service(t, "batch", "auth optional pam_exec.so quiet /mnt/tell", "auth required pam_unix.so nodelay", "account required pam_nologin.so", "account required pam_time.so",
		"account required pam_unix.so", "session required pam_env.so conffile=/mnt/env.conf readenv=0", "session required pam_umask.so umask=0027",
		"session required pam_limits.so conf=/mnt/limits.conf", "session required pam_exec.so quiet /mnt/tell")
}

func service(t testing.TB, name string, lines ...string) {
	t.Helper()
	put(t, "/etc/pam.d/"+name, strings.Join(lines, "\n")+"\n")
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// told returns what the witness has been told.
func told(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(witness)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

const (
	opened = "open_session batch payroll opcon batchwarden"
	closed = "close_session batch payroll opcon batchwarden"
)

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal(what)
		}
	}
}

func TestSession(t *testing.T) {
	furnished(t)
	s, err := program.Open(t.Context(), Question{"batch", "payroll", "opcon"})
	if err != nil {
		t.Fatal(err)
	}
	pid := s.s.cmd.Process.Pid
	if !slices.Contains(s.Env, "BATCH_REGION=north") {
		t.Errorf("environment %q", s.Env)
	}
	if s.Umask == nil || *s.Umask != 0o027 || s.Nice != nil {
		t.Errorf("umask %v, nice %v", s.Umask, s.Nice)
	}
	if i := slices.Index(s.Limits, Limit{unix.RLIMIT_NOFILE, 333, 444}); i < 0 {
		t.Errorf("limits %v", s.Limits)
	}
	if i := slices.Index(s.Limits, Limit{unix.RLIMIT_FSIZE, 7 << 10, 7 << 10}); i < 0 {
		t.Errorf("limits %v", s.Limits)
	}
	if got := told(t); !slices.Equal(got, []string{opened}) {
		t.Errorf("told %q", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got := told(t); !slices.Equal(got, []string{opened, closed}) {
		t.Errorf("told %q", got)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the program is still there: %v", err)
	}
}

func TestRefused(t *testing.T) {
	furnished(t)
	for _, c := range []struct {
		user string
		why  Why
		text string
	}{
		{"expired", Expired, "expired"},
		{"oldpassword", Expired, "no longer valid"},
		{"locked", Locked, "locked"},
		{"never", Denied, "Permission denied"},
		{"ghost", Missing, "User not known"},
		{"tomorrow", "", ""},
		{"nopassword", "", ""},
		{"star", "", ""},
	} {
		s, err := program.Open(t.Context(), Question{Service: "batch", User: c.user})
		refused, _ := errors.AsType[*Refused](err)
		switch {
		case c.why == "" && err != nil:
			t.Errorf("%s: %v", c.user, err)
		case c.why == "":
			if err := s.Close(); err != nil {
				t.Errorf("%s: %v", c.user, err)
			}
		case refused == nil || refused.Why != c.why || !strings.Contains(refused.Text, c.text):
			t.Errorf("%s: got %v", c.user, err)
		}
	}
	put(t, "/etc/nologin", "The machine is being moved\nto Basel.\n")
	_, err := program.Open(t.Context(), Question{Service: "batch", User: "payroll"})
	if refused, _ := errors.AsType[*Refused](err); refused == nil || refused.Why != Denied || !strings.Contains(refused.Text, "The machine is being moved to Basel.") {
		t.Errorf("nologin: got %v", err)
	}
	for _, line := range told(t) {
		if strings.HasPrefix(line, "open_session") && !strings.Contains(line, "tomorrow") && !strings.Contains(line, "nopassword") && !strings.Contains(line, "star") {
			t.Errorf("a session was opened: %s", line)
		}
	}
}

// TestCannotSay: what PAM cannot say is no refusal of the account.
func TestCannotSay(t *testing.T) {
	furnished(t)
	service(t, "hangs", "account required pam_exec.so /bin/sleep 30", "session required pam_permit.so")
	service(t, "breaks", "account required pam_nowhere.so")
	service(t, "fails", "account required pam_permit.so", "session required pam_exec.so quiet /bin/false")
	service(t, "unended", "account required pam_permit.so", "session optional pam_exec.so quiet type=open_session /bin/true", "session required pam_exec.so quiet type=close_session /bin/false")
	no := func(q Question, program Program, text string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
		defer cancel()
		_, err := program.Open(ctx, q)
		if refused, _ := errors.AsType[*Refused](err); err == nil || refused != nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q by %q: got %v", q, program, err)
		}
	}
	for _, s := range []string{"", "ghost", "../pam.d/batch", ".", "..", "batch\x00", strings.Repeat("s", 300)} {
		no(Question{Service: s, User: "payroll"}, program, "pam: ")
	}
	no(Question{Service: "batch"}, program, "must be names")
	no(Question{Service: "batch", User: "payroll"}, "/nonexistent", "no such file")
	no(Question{Service: "batch", User: "payroll"}, "/bin/true", "ended before it answered")
	no(Question{Service: "breaks", User: "payroll"}, program, "Module is unknown")
	no(Question{Service: "fails", User: "payroll"}, program, "session: ")
	no(Question{Service: "hangs", User: "payroll"}, program, "does not come to an end")
	s, err := program.Open(t.Context(), Question{Service: "unended", User: "payroll"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "end of the session") {
		t.Errorf("got %v", err)
	}
}

// holder opens a session and waits for its end. With a pid it makes the session last as long as that process.
func holder(job string) int {
	s, err := program.Open(context.Background(), Question{"batch", "payroll", "opcon"})
	var pid int
	if err == nil && job != "none" {
		_, err = fmt.Sscan(job, &pid)
		var fd int
		if err == nil {
			fd, err = unix.PidfdOpen(pid, 0)
		}
		if err == nil {
			err = s.Hold(os.NewFile(uintptr(fd), "pidfd"))
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(s.s.cmd.Process.Pid)
	_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
	return 0
}

// TestLauncherKilled: the end of the launcher ends the session, but not under a running job.
func TestLauncherKilled(t *testing.T) {
	furnished(t)
	kill := func(job string) (session int) {
		t.Helper()
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), holdEnv+"="+job)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		if _, err := fmt.Sscan(line, &session); err != nil {
			t.Fatalf("it says %q", line)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		return session
	}
	kill("none")
	eventually(t, "the session is still open", func() bool { return slices.Contains(told(t), closed) })

	put(t, witness, "")
	job := exec.Command("/bin/cat")
	in, err := job.StdinPipe()
	if err == nil {
		err = job.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	session := kill(fmt.Sprint(job.Process.Pid))
	for until := time.Now().Add(300 * time.Millisecond); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if got := told(t); !slices.Equal(got, []string{opened}) || syscall.Kill(session, 0) != nil {
			t.Fatalf("while the job runs: told %q", got)
		}
	}
	if err := errors.Join(in.Close(), job.Wait()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session is still open after the job", func() bool { return slices.Contains(told(t), closed) })
}

// TestStopped: when the machine goes down everybody gets SIGTERM, and sessions end.
func TestStopped(t *testing.T) {
	furnished(t)
	s, err := program.Open(t.Context(), Question{"batch", "payroll", "opcon"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the session is still open", func() bool { return slices.Contains(told(t), closed) })
	_ = s.Close() // it says "closed" unasked, or the socket is gone already
}

func passwordFile(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	go func() { // ends when all is written, or the reader is gone
		_, _ = io.Copy(w, strings.NewReader(text))
		_ = w.Close()
	}()
	return r
}

func TestVerify(t *testing.T) {
	furnished(t)
	service(t, "hangs", "auth required pam_unix.so nodelay", "auth required pam_exec.so /bin/sleep 30")
	service(t, "rootok", "auth sufficient pam_rootok.so", "auth required pam_unix.so nodelay")
	service(t, "closed", "auth requisite pam_nologin.so file=/etc/nologin", "auth required pam_unix.so nodelay")
	put(t, "/etc/nologin", "closed for the night\n")
	for _, c := range []struct {
		service, user, password string
		outcome                 Outcome
		why                     Why
		words                   string
		asked                   bool
	}{
		{"batch", "payroll", right, Right, "", "", true},
		{"batch", "payroll", right + " ", Wrong, "", "pam: password: Authentication failure", true},
		{"batch", "payroll", right + "\n", Wrong, "", "", true},
		{"batch", "nopassword", right, Untried, Locked, "no password on this host", false},
		{"batch", "star", right, Untried, Locked, "no password on this host", false},
		{"batch", "locked", right, Untried, Locked, "locked", false},
		{"batch", "expired", right, Untried, Expired, "the account has expired", false},
		{"batch", "tomorrow", right, Right, "", "", true},
		{"batch", "oldpassword", right, Untried, Expired, "has to be changed", false},
		{"batch", "ghost", right, Untried, Missing, "", false},
		{"none", "payroll", right, Untried, "", `there is no service "none"`, false},
		{"rootok", "payroll", "anything", Untried, "", "without asking for a password", false},
		{"closed", "payroll", right, Untried, Denied, "closed for the night", false},
	} {
		put(t, witness, "")
		outcome, err := program.Verify(t.Context(), Question{Service: c.service, User: c.user}, passwordFile(t, c.password))
		refused, _ := errors.AsType[*Refused](err)
		if outcome != c.outcome || (err == nil) != (c.outcome == Right) || (refused != nil) != (c.why != "") || refused != nil && refused.Why != c.why ||
			err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s, %s, %q: got %v, %v", c.service, c.user, c.password, outcome, err)
		}
		if asked := told(t)[0] != ""; asked != c.asked {
			t.Errorf("%s, %s, %q: PAM was asked %v", c.service, c.user, c.password, asked)
		}
	}
	put(t, witness, "")
	for _, text := range []string{"", strings.Repeat("x", 1025), strings.Repeat("x", 1<<20), right + "\x00"} {
		outcome, err := program.Verify(t.Context(), Question{Service: "batch", User: "payroll"}, passwordFile(t, text))
		if refused, _ := errors.AsType[*Refused](err); outcome != Untried || err == nil || refused != nil {
			t.Errorf("a password of %d octets: got %v, %v", len(text), outcome, err)
		}
	}
	if got := told(t); got[0] != "" {
		t.Errorf("PAM was asked: %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if outcome, err := program.Verify(ctx, Question{Service: "hangs", User: "payroll"}, passwordFile(t, right)); outcome != Unsure || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, %v", outcome, err)
	}
	if outcome, err := Program("/mnt/bin/none").Verify(t.Context(), Question{Service: "batch", User: "payroll"}, passwordFile(t, right)); outcome != Untried || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: got %v, %v", outcome, err)
	}
}

// TestNoAttemptLocks: with an account that pam_faillock counts failures of, nothing is tried, so that what we do never is
// the attempt that locks it.
func TestNoAttemptLocks(t *testing.T) {
	furnished(t)
	const tally = "/var/run/faillock/payroll"
	t.Cleanup(func() {
		if err := os.Remove(tally); err != nil {
			t.Error(err)
		}
	})
	service(t, "counts", "auth required pam_faillock.so preauth deny=2", "auth [success=1 default=bad] pam_unix.so nodelay",
		"auth [default=die] pam_faillock.so authfail deny=2", "auth optional pam_permit.so")
	try := func(password string) (Outcome, error) {
		return program.Verify(t.Context(), Question{Service: "counts", User: "payroll"}, passwordFile(t, password))
	}
	if outcome, err := try("wrong"); outcome != Wrong {
		t.Fatalf("got %v, %v", outcome, err)
	}
	before, err := os.ReadFile(tally)
	if err != nil || len(before) == 0 {
		t.Fatalf("pam_faillock counted nothing: %v", err)
	}
	for range 3 {
		outcome, err := try("wrong again")
		if refused, _ := errors.AsType[*Refused](err); outcome != Untried || refused == nil || refused.Why != Locked || !strings.Contains(refused.Text, "1 failed attempts") {
			t.Errorf("got %v, %v", outcome, err)
		}
	}
	if after, err := os.ReadFile(tally); err != nil || !bytes.Equal(after, before) {
		t.Errorf("more is counted than before: %v", err)
	}
	if out, err := exec.Command("faillock", "--user", "payroll", "--reset").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if outcome, err := try(right); outcome != Right {
		t.Errorf("after a reset: got %v, %v", outcome, err)
	}
}

// TestNoCopyOfThePassword looks through the program's memory when PAM ends, right or wrong.
func TestNoCopyOfThePassword(t *testing.T) {
	furnished(t)
	const wrong = "an unlikely guess 41"
	for _, c := range []struct {
		password, more string
		right, found   bool
	}{
		{right, "", true, false},
		{wrong, "", false, false},
		{right, " keep", true, true}, // the search finds what is there
	} {
		put(t, "/mnt/copies", "")
		service(t, "scan", "auth required /mnt/bin/pam_scan.so /mnt/copies "+hex.EncodeToString([]byte(c.password))+c.more, "auth required pam_unix.so nodelay")
		outcome, err := program.Verify(t.Context(), Question{Service: "scan", User: "payroll"}, passwordFile(t, c.password))
		if (outcome == Right) != c.right || (outcome == Wrong) == c.right {
			t.Errorf("got %v, %v", outcome, err)
		}
		got, err := os.ReadFile("/mnt/copies")
		if copies, ok := strings.CutSuffix(string(got), " copies\n"); err != nil || !ok || (copies != "0") != c.found {
			t.Errorf("%q%s: got %q, %v", c.password, c.more, got, err)
		}
	}
}

func BenchmarkSession(b *testing.B) {
	furnished(b)
	service(b, "plain", "account required pam_unix.so", "session required pam_unix.so")
	for b.Loop() {
		s, err := program.Open(b.Context(), Question{Service: "plain", User: "payroll"})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
