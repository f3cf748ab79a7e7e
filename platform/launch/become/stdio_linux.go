package become

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// takeStdio makes the passed descriptors this process's 0, 1 and 2. Whoever made them may serve their files himself,
// and let whoever uses or closes one wait for ever: that is the job's matter, since nobody else has had them open.
func takeStdio(o *Order) error {
	if !o.Passed {
		return nil
	}
	var octet [1]byte
	room := make([]byte, unix.CmsgSpace(4*4)) // one more than may come
	n, oobn, flags, _, err := unix.Recvmsg(PassedFD, octet[:], room, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(room[:oobn])
	if err != nil || n != 1 || len(messages) != 1 || flags&unix.MSG_CTRUNC != 0 {
		return errors.Join(errors.New("the descriptors did not come in one piece"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 3 {
		return errors.Join(fmt.Errorf("%d descriptors came, not 3", len(fds)), err)
	}
	for i, fd := range fds {
		if err := usable(fd); err != nil {
			return fmt.Errorf("descriptor %d: %w", i, err)
		}
		// None of them is 0, 1 or 2: those were taken. The exec closes what they were, and keeps the copy.
		if err := unix.Dup3(fd, i, 0); err != nil {
			return fmt.Errorf("descriptor %d: %w", i, err)
		}
	}
	return nil
}

// usable refuses what no shell would make a program's stdio: by a directory a job could leave where it belongs.
func usable(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if flags&unix.O_PATH != 0 {
		return fmt.Errorf("opened without access: %w", unix.EBADF)
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	return nil
}
