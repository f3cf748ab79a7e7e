package keeper

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
)

var everything = peer.Want{Program: true, SHA256: true}

// TestAttest: what the daemon learns about who connected, from the launcher.
func TestAttest(t *testing.T) {
	b := newBed(t)
	conn, agent := b.requester(agentUID)
	at, err := b.launcher.Attest(b.ctx(), conn, everything)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	if at.UID != agentUID || at.GID != agentUID || !slices.Equal(at.Groups, []uint32{agentUID}) || at.PID != agent.cmd.Process.Pid ||
		at.Exe != program || at.SHA256 != hex.EncodeToString(sum[:]) || at.Unit != "" || at.NoExe+at.NoSHA256 != "" {
		t.Errorf("got %+v", at)
	}
	if who, err := b.launcher.Attest(b.ctx(), conn, peer.Want{}); err != nil || who.UID != agentUID || who.Exe+who.SHA256 != "" {
		t.Errorf("who it is and no more: %+v, %v", who, err)
	}
	s := spec("known", "/bin/true")
	s.Started = started(t, at.PID)
	if job, _, err := b.launcher.Start(b.ctx(), conn, s); err != nil {
		t.Errorf("a launch for that very process: %+v, %v", job, err)
	}
	s = spec("another", "/bin/true")
	s.Started = started(t, at.PID) + 1
	b.refused(conn, s, launch.CodeCaller, "another time")

	agent.end()
	_, err = b.launcher.Attest(b.ctx(), conn, everything)
	refusal(t, err, launch.CodeCaller, "has ended")
	b.stopDaemon()
	_, err = b.launcher.Attest(b.ctx(), conn, everything)
	refusal(t, err, launch.CodeUnavailable)
}

// started is field 22 of a process's stat, of one whose name has no blanks.
func started(t *testing.T, pid int) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return uint64(number(t, strings.Fields(string(text))[21]))
}

// TestTurncoat: a requester that executes a setuid program after it connected starts nothing.
func TestTurncoat(t *testing.T) {
	b := newBed(t)
	place := dir(t, "/mnt/setuid", 0, 0o755)
	file := copyProgram(t, place)
	if err := errors.Join(os.Chown(file, otherUID, otherUID), unix.Chmod(file, unix.S_ISUID|0o755)); err != nil {
		t.Fatal(err)
	}
	agent := act(t, agentUID, "turncoat", b.config.PublicSocket, file)
	conn := b.accepted()
	if at, err := b.launcher.Attest(b.ctx(), conn, everything); err != nil || at.Exe != program {
		t.Errorf("before: %+v, %v", at, err)
	}
	if _, err := agent.stdin.(*os.File).WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	if !agent.lines.Scan() {
		t.Fatal("it did not execute the program")
	}
	_, err := b.launcher.Attest(b.ctx(), conn, everything)
	refusal(t, err, launch.CodeCaller, "not what it was")
	b.refused(conn, spec("turncoat", "/bin/true"), launch.CodeCaller, "not what it was")
}

func copyProgram(t *testing.T, place string) string {
	t.Helper()
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(place, "self")
	if err := os.WriteFile(file, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestHungFiles: whoever lets the file system of his program hang is attested without a path, keeps nobody else
// waiting, and does not keep the launcher from ending a session.
func TestHungFiles(t *testing.T) {
	b := newBed(t)
	place := dir(t, "/mnt/hung", 0, 0o755)
	cmd := exec.Command(copyProgram(t, place), b.config.PublicSocket)
	cmd.Env = []string{roleEnv + "=requester"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUID, Gid: otherUID}}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	hung := b.accepted()
	fine, _ := b.requester(agentUID)

	asked := hang(t, place)
	type answer struct {
		at  peer.Attested
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		at, err := b.launcher.Attest(b.ctx(), hung, everything)
		answers <- answer{at, err}
	}()
	<-asked
	if at, err := b.launcher.Attest(b.ctx(), fine, everything); err != nil || at.Exe != program || at.SHA256 == "" {
		t.Errorf("beside: %+v, %v", at, err)
	}
	if len(answers) > 0 {
		t.Error("the hung one was answered at once: this shows nothing")
	}
	got := <-answers
	if got.err != nil || got.at.UID != otherUID || got.at.Exe != "" || !strings.Contains(got.at.NoExe, "in time") {
		t.Errorf("hung: %+v, %v", got.at, got.err)
	}
	b.stopDaemon()
	b.runDaemon() // waits for the session
}

// hang mounts a file system that never answers over a directory until the test ends. The channel is closed when it was
// asked something.
func hang(t *testing.T, place string) <-chan struct{} {
	t.Helper()
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("hang", place, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse.Fd())); err != nil {
		_ = fuse.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(place, unix.MNT_DETACH), fuse.Close()); err != nil {
			t.Error(err)
		}
	})
	request := make([]byte, 64<<10)
	n, err := fuse.Read(request) // FUSE_INIT, which has to be answered
	if err != nil || n < 48 {
		t.Fatalf("%d octets from the kernel, %v", n, err)
	}
	answer := binary.NativeEndian.AppendUint32(nil, 16+64)
	answer = binary.NativeEndian.AppendUint32(answer, 0)
	answer = append(answer, request[8:16]...)  // its number
	answer = append(answer, request[40:48]...) // the version that the kernel speaks
	answer = binary.NativeEndian.AppendUint32(answer, 4096)
	answer = append(answer, make([]byte, 64-12)...)
	if _, err := fuse.Write(answer); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = fuse.Read(request) // ends with the file when nobody asks
	}()
	return asked
}

// TestAttestSpeed holds the time of an attestation against that of a call that only goes there and back.
func TestAttestSpeed(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector is no clock; run: go test ./platform/launch/keeper")
	}
	c := configure(t)
	c.Log = slog.New(slog.DiscardHandler)
	b := start(t, c)
	conn, _ := b.requester(agentUID)
	var st unix.Stat_t
	if err := unix.Stat(program, &st); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(time.Unix(st.Ctim.Unix()).Add(2100 * time.Millisecond))) // before, its sum is not remembered
	rounds := func(call func() error) time.Duration {
		var times []time.Duration
		for range 300 {
			began := time.Now()
			if err := call(); err != nil {
				t.Fatal(err)
			}
			times = append(times, time.Since(began))
		}
		slices.Sort(times)
		return times[len(times)/4] // of the better half: others use this machine too
	}
	status := rounds(func() error { _, err := b.launcher.Jobs(t.Context(), "nobody"); return err })
	for name, w := range map[string]peer.Want{"ids": {}, "program": {Program: true}, "sum": everything} {
		took := rounds(func() error { _, err := b.launcher.Attest(t.Context(), conn, w); return err })
		t.Logf("%s: %v, %.1f times a call that does nothing (%v)", name, took, float64(took)/float64(status), status)
		if took > 20*status {
			t.Errorf("%s: %v, more than 20 times %v", name, took, status)
		}
	}
}
