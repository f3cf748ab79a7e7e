package hostkey

import (
	"io"
	"os"
)

// machineIDs reads what may hold the machine's id, the best first. Both files are the machine
// owner's; what is not there or no id is passed over.
func machineIDs() (ids []string) {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if text, err := readSmall(path); err == nil {
			ids = append(ids, text)
		}
	}
	return ids
}

// readSmall reads the first octets of a file.
func readSmall(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, 256))
	_ = f.Close() // only read
	return string(text), err
}
