package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"batchwarden/platform/launch"
)

// TestRootless: a launcher without root serves its daemon, says what it is, and starts nothing.
func TestRootless(t *testing.T) {
	needRoot(t)
	place := dir(t, "/mnt/rootless", otherUID, 0o755)
	cmd := exec.Command(program, place)
	cmd.Env = []string{roleEnv + "=rootless"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUID, Gid: otherUID}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func playRootless(place string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	c := Config{
		Version: "test", PublicSocket: filepath.Join(place, "public/p.sock"), Socket: filepath.Join(place, "private/l.sock"),
		StateDir: filepath.Join(place, "state"), BecomePath: beginning, DaemonUID: otherUID, DaemonGID: otherUID, SyncPath: "/bin/cat",
		Allow: func(Ask) error { return nil }, Bounds: func() Bounds { return Bounds{Keep: time.Hour, MaxRunning: 10} }, JournalSync: time.Second, Log: log,
	}
	ended := make(chan error, 2)
	go func() { ended <- Run(ctx, c) }()
	l := launch.New(c.Socket, log)
	sockets := make(chan *net.UnixListener, 1)
	go func() { ended <- l.Run(ctx, func(s *net.UnixListener) { sockets <- s }) }()
	public := <-sockets
	defer public.Close()

	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.PublicSocket, Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, _, err = l.Start(ctx, conn, spec("x", "/bin/true"))
	if r, ok := errors.AsType[*launch.Refused](err); !ok || r.Code != launch.CodeRefused || !strings.Contains(r.Reason, "not root") {
		return fmt.Errorf("a launch: %w", err)
	}
	in, give, err := os.Pipe()
	if err != nil {
		return err
	}
	take, out, err := os.Pipe()
	if err != nil {
		return err
	}
	if _, err := give.WriteString("text"); err != nil {
		return err
	}
	if err := errors.Join(give.Close(), l.Sync(ctx, in, out)); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	text := make([]byte, 10)
	if n, err := take.Read(text); err != nil || string(text[:n]) != "text" {
		return fmt.Errorf("sync wrote %q, %w", text, err)
	}
	for !strings.Contains(strings.Join(l.Status().Problems, " "), "not root") {
		if ctx.Err() != nil {
			return fmt.Errorf("status does not say it: %+v", l.Status())
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	return errors.Join(<-ended, <-ended)
}
