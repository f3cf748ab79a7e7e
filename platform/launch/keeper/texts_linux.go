package keeper

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
	"batchwarden/platform/localsock"
)

// maxTexts bounds the scripts and stdins of all running jobs together: both lie in memory.
const maxTexts = 256 << 20

// takeRoom counts the texts of a launch; they are in use until giveRoom.
func (k *keeper) takeRoom(s *launch.Spec) error {
	if k.texts.Add(textsOf(s)) <= maxTexts {
		return nil
	}
	k.giveRoom(textsOf(s))
	return &launch.Refused{Code: launch.CodeOverloaded, Reason: fmt.Sprintf("the scripts and stdins of running jobs have %d octets, as many as may", int64(maxTexts))}
}

func (k *keeper) giveRoom(octets int64) { k.texts.Add(-octets) }

func textsOf(s *launch.Spec) int64 {
	n := len(s.Stdin)
	if s.Script != nil {
		n += len(s.Script.Text)
	}
	return int64(n)
}

// scriptsDir is where scripts lie. Jobs' users can pass through it, and through what it lies in, but not look around.
func (k *keeper) scriptsDir() string { return filepath.Join(filepath.Dir(k.PublicSocket), "scripts") }

func (k *keeper) scriptPath(serial uint64) string {
	return filepath.Join(k.scriptsDir(), strconv.FormatUint(serial, 10))
}

// furnish makes the files of a job that has texts: its script and its stdin. What it made is gone when the job is over.
func (k *keeper) furnish(j *job, p *plan) (err error) {
	if s := p.spec.Script; s != nil {
		path := k.scriptPath(j.Serial)
		if err := writeScript(path, s.Text, p.order.Account.UID, p.order.GID); err != nil {
			return fmt.Errorf("script: %w", err)
		}
		p.order.File, p.order.Argv = words(p.spec, &p.order.Account, path)
		if p.text, err = p.order.Encode(); err != nil {
			return err
		}
	}
	if len(p.spec.Stdin) > 0 {
		if p.stdin, err = sealedFile(p.spec.Stdin); err != nil {
			return fmt.Errorf("stdin: %w", err)
		}
	}
	return nil
}

func writeScript(path string, text []byte, uid, gid uint32) error {
	if err := localsock.MakeDir(filepath.Dir(path), 0o711, -1); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o400)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chown(int(uid), int(gid)))
	return errors.Join(err, f.Close())
}

// sealedFile is a file without a name that can only be read.
func sealedFile(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("stdin", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "stdin")
	_, err = f.Write(text)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeScript is for a job that has ended, before that is known.
func (k *keeper) removeScript(j *job) {
	if !j.Script {
		return
	}
	if err := os.Remove(k.scriptPath(j.Serial)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.Log.Error("the script of a job that has ended", "serial", j.Serial, "err", err) // the next launcher tries again
	}
}

// sweepScripts removes what earlier launchers left of jobs that have ended.
func (k *keeper) sweepScripts() {
	entries, err := os.ReadDir(k.scriptsDir())
	if err != nil {
		return // there are none
	}
	for _, e := range entries {
		serial, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil || k.live[serial] != nil { // not ours, or in use
			continue
		}
		if err := os.Remove(k.scriptPath(serial)); err != nil {
			k.Log.Error("a script that is left over", "serial", serial, "err", err)
		}
	}
}
