package become

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
)

// Steps that callers tell apart.
const (
	StepAccount = "account" // the launcher's own: between the start of the process and its order
	StepChdir   = "chdir"
	StepCommand = "command"
	StepExec    = "exec"
)

// steps are enum step of child/become.c.
var steps = [...]string{
	"", "orders", "descriptors", "session", "signals", "umask", "limits", "groups", "gid", "uid", "capabilities", "proof", "stdio",
	StepChdir, StepCommand, StepExec,
}

// answer is struct answer of child/become.c.
type answer struct {
	Step, Errno, Why, A, B, ByPath uint32
	Element                        [232]byte
}

// Report is what is known about a process that was given an Order. With a Step it is the failure of that step;
// without, the process has become the command.
type Report struct {
	Step   string
	Errno  syscall.Errno
	Reason string
	ByPath bool // the command was executed by its path, after comparing device and inode
}

// Failed reports whether a step failed.
func (r Report) Failed() bool { return r.Step != "" }

// ErrEnded reports that the process ended before its exec without saying why.
var ErrEnded = errors.New("become: the child ended before the exec")

// ReadAnswer waits for the exec or the failure of the process at the other end. The error is that of reading,
// ErrEnded, or of an answer that cannot be understood; a failed step is a Report.
func ReadAnswer(r io.Reader) (Report, error) { return readAnswer(r, binary.NativeEndian) }

func readAnswer(r io.Reader, as binary.ByteOrder) (Report, error) {
	var last Report
	text := make([]byte, binary.Size(answer{}))
	// It announces the exec once, once more where that is done by the path, and then at most fails.
	for said := 0; said <= 3; said++ {
		switch _, err := io.ReadFull(r, text); {
		case errors.Is(err, io.EOF) && said > 0, errors.Is(err, syscall.ECONNRESET) && said > 0:
			return last, nil
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
			return Report{}, ErrEnded
		case err != nil:
			return Report{}, fmt.Errorf("become: answer: %w", err)
		}
		var a answer
		if _, err := binary.Decode(text, as, &a); err != nil {
			return Report{}, fmt.Errorf("become: answer: %w", err)
		}
		if int(a.Step) >= len(steps) || a.ByPath > 1 {
			break
		}
		if last = a.report(); last.Failed() {
			return last, nil
		}
	}
	return Report{}, errors.New("become: an answer that cannot be understood")
}

func (a *answer) report() Report {
	if a.Step == 0 {
		return Report{ByPath: a.ByPath == 1}
	}
	r := Report{Step: steps[a.Step], Errno: syscall.Errno(a.Errno), Reason: a.reason()}
	if element, _, _ := strings.Cut(string(a.Element[:]), "\x00"); element != "" && r.Step == StepCommand {
		r.Reason = fmt.Sprintf("%q: %s", element, r.Reason)
	}
	return r
}

// reason says what enum why of child/become.c does.
func (a *answer) reason() string {
	mode := a.B & 0o7777
	switch a.Why {
	case 1:
		return fmt.Sprintf("the order is malformed (%d, %d)", a.A, a.B)
	case 2:
		return fmt.Sprintf("a uid is %d and a gid %d, not those of the order", int32(a.A), int32(a.B))
	case 3:
		return fmt.Sprintf("the groups are not those of the order: %d for %d", a.A, a.B)
	case 4:
		return fmt.Sprintf("capabilities are left: %#x, inheritable %#x", a.A, a.B)
	case 5:
		return fmt.Sprintf("a way back, number %d, was not closed by EPERM: errno %d", a.A, int32(a.B))
	case 6:
		return "the descriptors did not come in one piece"
	case 7:
		return fmt.Sprintf("descriptor %d: %s", a.A, syscall.Errno(a.Errno))
	case 8:
		return "it is in no directory of PATH"
	case 9:
		return "not a regular file"
	case 10:
		return "not executable: " + syscall.Errno(a.Errno).Error()
	case 11:
		return "not the file that was allowed"
	case 12:
		return fmt.Sprintf("it belongs to uid %d, neither root nor the job's user", a.A)
	case 13:
		return fmt.Sprintf("everybody can write it (mode %04o)", mode)
	case 14:
		return fmt.Sprintf("group %d can write it (mode %04o)", a.A, mode)
	case 15:
		return "its path leads to another file now"
	case 16:
		return "the interpreter of the script does not exist"
	}
	return syscall.Errno(a.Errno).Error()
}
