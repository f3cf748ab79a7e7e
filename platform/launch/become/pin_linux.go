package become

import "golang.org/x/sys/unix"

// PinOf names the state of a file that st was read from.
func PinOf(st *unix.Stat_t) *Pin {
	dev := uint64(st.Dev)
	return &Pin{
		Major: unix.Major(dev), Minor: unix.Minor(dev), Ino: st.Ino, Size: st.Size,
		CTime: int64(st.Ctim.Sec), CNsec: uint32(st.Ctim.Nsec),
	}
}
