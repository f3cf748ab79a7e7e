// Package become is how the launcher tells the process of a job what to become. That process begins as the program
// batchwarden-become, which is written in C and lies in child: started by the launcher with the launcher's rights and in
// the job's cgroup, it gives those rights up for good, proves that, and turns into the job's command by exec.
//
// The order of what it does is fixed; each step has a name, and the first that fails is reported with its errno:
//
//	orders       one Order, read from descriptor TalkFD and not believed
//	descriptors  all but 0, 1 and 2 are closed by the exec
//	session      it leads a session of its own
//	signals      no signal is blocked or ignored
//	umask
//	limits       those of the order, niceness, a neutral oom score, and the login uid where the kernel lets us
//	groups, gid, uid   exactly those of the order
//	capabilities none are left for an exec to turn into rights
//	proof        ids and groups are these and no others, no capability is left, and there is no way back
//	stdio        passed descriptors are taken out of their socket: no process with more rights has them open
//	chdir        as the user
//	command      found and opened as the user, element by element: it, and every directory and link on the way, belongs
//	             to root or the user and can be changed by nobody else; a directory with the sticky bit may be writable
//	exec         by that descriptor; a script by its path, when that still is the same file
//
// Between limits and groups the process waits for the launcher's last word, Go. The launcher gives it when it has
// written down that the process exists, and has looked the account up for the last time: what was decided about must
// still be so before anything is done in the account's name. Before the exec the process says so; success shows as the end
// of its socket after that, with no failed step in between: the socket was closed by the exec.
//
// The order may come long after the process began, which then waits: it ends with the socket.
package become

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"batchwarden/platform/account"
)

// Program is the name of the file that such a process executes first.
const Program = "batchwarden-become"

// TalkFD is the descriptor that the process begins with, beside 0, 1 and 2, which are the job's: a stream socket whose other
// end is the launcher's. No other may be open.
const TalkFD = 3

// Go follows the order: the process may become the account, and the command.
const Go = 'g'

// Bounds of an Order. A kernel takes less.
const (
	MaxOrder = 5 << 20 // octets, encoded
	maxTexts = 1 << 18 // paths, arguments and environment together
)

// ErrTooLarge reports an Order over its bounds. It is E2BIG to errors.Is.
var ErrTooLarge = fmt.Errorf("become: the command and its environment are too long: %w", syscall.E2BIG)

// Order is everything that the process needs to know.
type Order struct {
	Account account.Account // what the launcher's decision was about
	GID     uint32          // the job's primary group, one of the account's
	File    string          // of the command; empty: what Argv[0] says
	Argv    []string
	Env     []string // all of it
	Dir     string
	Umask   uint32
	Limits  []Limit // of resources, beside those that the launcher has
	Nice    *int    // -20 to 19; nil: the launcher's
	Pin     *Pin    // the command must be this file; nil: any
	// Ignored are the signals that the launcher ignores, and the process will not: of signal n, bit n-1.
	Ignored uint64
	// Passed: 0, 1 and 2 are to be the three descriptors that lie in a socket, which comes with the order's first octet.
	Passed bool
}

// Limit is one of setrlimit(2).
type Limit struct {
	Resource   uint32
	_          uint32
	Soft, Hard uint64
}

// Pin names one state of one file.
type Pin struct {
	Major, Minor uint32
	Ino          uint64
	Size         int64
	CTime        int64
	CNsec        uint32
}

const (
	magic = 0x62776f32

	flagPassed = 1
	flagPinned = 2
	flagNice   = 4
)

// header is struct order in child/become.c.
type header struct {
	Magic, Length, UID, GID, OwnGroup, Umask, Flags uint32
	Nice                                            int32
	Limits, Groups, Paths, Args, Envs               uint32
	Major, Minor, CNsec                             uint32
	Ino                                             uint64
	Size, CTime                                     int64
	Ignored                                         uint64
}

// Encode returns o as the process reads it. No text in it may have a NUL. The error is ErrTooLarge.
func (o *Order) Encode() ([]byte, error) { return o.encode(binary.NativeEndian) }

func (o *Order) encode(as binary.ByteOrder) ([]byte, error) {
	gids, paths := o.Account.GIDs(), o.paths()
	h := header{
		Magic: magic, UID: o.Account.UID, GID: o.GID, OwnGroup: ^uint32(0), Umask: o.Umask,
		Ignored: o.Ignored, Limits: uint32(len(o.Limits)), Groups: uint32(len(gids)), Paths: uint32(len(paths)), Args: uint32(len(o.Argv)), Envs: uint32(len(o.Env)),
	}
	if o.Account.OwnGroup {
		h.OwnGroup = o.Account.GID
	}
	if o.Passed {
		h.Flags |= flagPassed
	}
	if o.Nice != nil {
		h.Flags |= flagNice
		h.Nice = int32(*o.Nice)
	}
	if p := o.Pin; p != nil {
		h.Flags |= flagPinned
		h.Major, h.Minor, h.Ino, h.Size, h.CTime, h.CNsec = p.Major, p.Minor, p.Ino, p.Size, p.CTime, p.CNsec
	}
	size := binary.Size(h) + binary.Size(o.Limits) + binary.Size(gids)
	texts := slices.Concat([]string{o.Dir}, paths, o.Argv, o.Env)
	for _, t := range texts {
		size += len(t) + 1
	}
	if size > MaxOrder || len(texts) > maxTexts {
		return nil, ErrTooLarge
	}
	h.Length = uint32(size)
	text := make([]byte, 0, size)
	for _, numbers := range []any{h, o.Limits, gids} {
		var err error
		if text, err = binary.Append(text, as, numbers); err != nil {
			panic("become: " + err.Error()) // they are of fixed sizes
		}
	}
	for _, t := range texts {
		text = append(append(text, t...), 0)
	}
	return text, nil
}

// paths are where the command may lie: what File or Argv[0] names, or in the job's PATH. Elements of PATH that are not absolute
// are passed over.
func (o *Order) paths() (paths []string) {
	name := cmp.Or(o.File, o.Argv[0])
	if strings.Contains(name, "/") {
		return []string{name}
	}
	for _, e := range o.Env {
		path, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for dir := range strings.SplitSeq(path, ":") {
			if strings.HasPrefix(dir, "/") {
				paths = append(paths, strings.TrimRight(dir, "/")+"/"+name)
			}
		}
	}
	return paths
}
