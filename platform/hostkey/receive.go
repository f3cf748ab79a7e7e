package hostkey

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"batchwarden/platform/lockmem"
)

// receiveTime bounds how long the other end of a pipe may take: the key should be in it already.
const receiveTime = time.Second

// Receive reads a key of the given kind from a pipe that another process filled and closed: exactly
// the 32 octets, straight into locked memory. The caller gives KEK back with a.Drop, and closes pipe.
func Receive(pipe *os.File, kind string, a *lockmem.Arena) (*Key, error) {
	switch kind {
	case KeyFile, Credential, TPM2, DPAPI:
	default:
		return nil, fmt.Errorf("hostkey: %q is no kind of key; keyfile, credential, tpm2 and dpapi are", kind)
	}
	return fill(kind, a, func(kek, _ *lockmem.Buffer) error { return receive(pipe, kek) })
}

func receive(pipe *os.File, kek *lockmem.Buffer) (err error) {
	// Only a pipe is the kernel's own from end to end: a file may lie on a file system that some other
	// process answers for, or never does.
	info, err := pipe.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeNamedPipe {
		return errors.New("the key has to come by a pipe")
	}
	f, err := pollable(pipe)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.SetReadDeadline(time.Now().Add(receiveTime)); err != nil {
		return err
	}
	if err := kek.ReadFull(f, Size); err != nil {
		return err
	}
	// One octet more, or a writer that is still there, is not what a key looks like.
	if n, err := f.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return errors.New("the pipe does not end after the key")
	}
	return nil
}
