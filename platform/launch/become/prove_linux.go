package become

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dropCapabilities empties what the change of the uid leaves: the inheritable set, which an exec could turn into
// rights. A job of root's keeps root's capabilities.
func dropCapabilities(uid uint32) error {
	// Nobody else of this uid may look into, or steer, this process before it is the job.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	if uid == 0 {
		return nil
	}
	var none [2]unix.CapUserData
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}

// prove asks the kernel what this process is now, and tries the way back.
func prove(o *Order) error {
	uid, gid := int(o.Account.UID), int(o.GID)
	if r, e, s := unix.Getresuid(); r != uid || e != uid || s != uid {
		return fmt.Errorf("uids are %d, %d and %d, not %d", r, e, s, uid)
	}
	if r, e, s := unix.Getresgid(); r != gid || e != gid || s != gid {
		return fmt.Errorf("gids are %d, %d and %d, not %d", r, e, s, gid)
	}
	// An id that is nobody's changes nothing and returns what is in force.
	if fsuid, _ := unix.SetfsuidRetUid(-1); fsuid != uid {
		return fmt.Errorf("the file system's uid is %d, not %d", fsuid, uid)
	}
	if fsgid, _ := unix.SetfsgidRetGid(-1); fsgid != gid {
		return fmt.Errorf("the file system's gid is %d, not %d", fsgid, gid)
	}
	if err := proveGroups(o); err != nil {
		return err
	}
	if uid == 0 {
		return nil
	}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil {
		return err
	}
	// The ambient set is always within these.
	if caps != [2]unix.CapUserData{} {
		return fmt.Errorf("capabilities are left: %+v", caps)
	}
	return proveNoReturn(gid)
}

func proveGroups(o *Order) error {
	got, err := unix.Getgroups()
	if err != nil {
		return err
	}
	slices.Sort(got)
	got = slices.Compact(got)
	want := o.Account.GIDs()
	if !slices.EqualFunc(got, want, func(g int, w uint32) bool { return g == int(w) }) {
		return fmt.Errorf("groups are %v, not %v", got, want)
	}
	if !slices.Contains(want, o.GID) {
		return fmt.Errorf("group %d is not one of the account's", o.GID)
	}
	return nil
}

// proveNoReturn tries to become root again, by raw system calls: the answer has to be the kernel's.
func proveNoReturn(gid int) error {
	none := ^uintptr(0)
	tries := []struct {
		name    string
		nr      uintptr
		a, b, c uintptr
	}{
		{"setuid(0)", unix.SYS_SETUID, 0, 0, 0},
		{"setreuid(-1, 0)", unix.SYS_SETREUID, none, 0, 0},
		{"setresuid(0, 0, 0)", unix.SYS_SETRESUID, 0, 0, 0},
		{"setgroups(0)", unix.SYS_SETGROUPS, 0, uintptr(unsafe.Pointer(nil)), 0},
	}
	if gid != 0 {
		tries = append(tries, tries[0])
		tries[len(tries)-1].name, tries[len(tries)-1].nr = "setgid(0)", unix.SYS_SETGID
	}
	for _, t := range tries {
		switch _, _, errno := unix.RawSyscall(t.nr, t.a, t.b, t.c); errno {
		case unix.EPERM:
		case 0:
			return errors.New(t.name + " succeeded")
		default:
			return fmt.Errorf("%s: %w", t.name, errno)
		}
	}
	return nil
}
