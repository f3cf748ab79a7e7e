// Package documents says what the documents of batch users and policies may hold
// as they lie in Vault. Those who put them there and the machines that take
// them read them here, so that what the ones write the others do not refuse.
package documents

import "fmt"

// Newest is the newest format of documents that this program knows.
const Newest = 1

// Platforms and Models are all that documents may name.
var (
	Platforms = []string{"unix", "windows", "zos"}
	Models    = []string{"automic", "stonebranch", "opcon"}
)

// errNewer is a document of a format to come: the last good one stays.
func errNewer(format int64) error {
	return fmt.Errorf("format.newer: the document has format %d, this version of batchwarden understands up to %d; upgrade it on this machine, or write the document in the older format", format, Newest)
}

// GoodName reports whether s can be the name of a batch user, a realm, a group
// or a machine: 1 to 61 of A-Z a-z 0-9 . _ - and no dots alone. It is a single
// element of a path, and no pattern to Vault.
func GoodName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= 61 && s != "." && s != ".." // Vault limits paths
}
