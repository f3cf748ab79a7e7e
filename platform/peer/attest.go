package peer

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// ErrChanged reports that the process is not what it was when it made the connection: it has other ids now, as after
// executing a setuid program, or it is another process with the same number.
var ErrChanged = errors.New("the peer is not what it was when it connected")

// Bounds of what an Attestor does about the file that a process executes. Whoever runs a program from a file system
// of his own can let it answer as slowly as he likes.
const (
	// MaxExe is the size of the largest file that is summed up.
	MaxExe = 512 << 20
	// FileWait is how long an attestation waits to see the file, and SumWait how long for its sum.
	FileWait = 3 * time.Second
	SumWait  = 20 * time.Second
)

// Want says what an attestation is to find out besides what it always does.
type Want struct {
	Program bool `json:"program,omitempty"` // the executable file and the system unit
	SHA256  bool `json:"sha256,omitempty"`  // of the executable file; Program too then
	// Started is the start of the process that is expected, from an earlier look at the same connection: Peer.Started.
	// Another one is ErrChanged. 0: not compared.
	Started uint64 `json:"started,omitempty"`
	// Named says that the other end of the connection has to be bound to an abstract name. One that is bound to
	// anything is not accepted otherwise.
	Named bool `json:"named,omitempty"`
}

// Attested is what was true of a peer's process during an attestation. What could not be found out about its program
// is empty: it matches nothing.
type Attested struct {
	Peer // with Started, if that was compared

	User string `json:"user,omitempty"` // what the uid is called; for who asks a resolver to fill in

	// Exe is where the file that the process executes lies, all links resolved, for whoever has the file system of the
	// attestor before him. It is empty, and NoExe says why, when that very file is not there any more: it was
	// deleted or replaced while the process ran. Of a script it is the interpreter.
	Exe   string `json:"exe,omitempty"`
	NoExe string `json:"no_exe,omitempty"`
	// SHA256 is the sum of that file's content in lower-case hex, also when it lies nowhere any more.
	SHA256   string `json:"sha256,omitempty"`
	NoSHA256 string `json:"no_sha256,omitempty"`

	Device uint64 `json:"device,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`

	// Unit is the system service that the process belongs to, such as "lsam.service"; "" when it belongs to none. The
	// units of users' own service managers are none.
	Unit string `json:"unit,omitempty"`

	// Name is what the other end is bound to, with its leading NUL; "" unless Want.Named. Whoever connects chooses it.
	Name string `json:"name,omitempty"`
	// Systemd says that systemd runs this system, so that a service's processes have its Unit; unknown unless Want.Named.
	Systemd bool `json:"systemd,omitempty"`

	//lint:ignore U1000 Only Linux can say which program asks.
	seen // what later looks are compared with
}

// Attestor looks at the processes behind connections, with the rights of root or only at those of its own user. It
// remembers the sums of files that did not change. Its methods may be called from several goroutines.
type Attestor struct{ attestor }

// NewAttestor returns an Attestor for the processes of the pid and user namespace that it runs in.
func NewAttestor() (*Attestor, error) {
	a, err := newAttestor()
	if err != nil {
		return nil, wrap(err)
	}
	return a, nil
}

// Attest looks at the process that made c, a connection which the listener bound to path accepted: see Accepted for
// what else a descriptor from somebody untrusted can be. The process is held throughout; it ran when the last look
// was over, its ids are those of the connection, and it is in our pid and user namespaces. Errors mean that nothing is
// known about the peer: deny. They are ErrNotAccepted, ErrGone, ErrForeign, ErrChanged, and what the system said.
//
// A process can execute another program afterwards, and be traced by others of the same user: Exe, SHA256 and Unit
// tell apart only what different users run.
func (a *Attestor) Attest(ctx context.Context, c syscall.Conn, path string, w Want) (Attested, error) {
	at, err := a.attest(ctx, c, path, w)
	if err != nil {
		return Attested{}, wrap(err)
	}
	return at, nil
}
