package daemon_test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// golden are the directories with what a version once wrote, which every later one reads.
var golden = []string{
	"daemon/audit/testdata/log", "daemon/testdata/suspension-1", "ipc/wire/testdata/api-1", "platform/launch/keeper/testdata/journal-1",
	"platform/launch/testdata/protocol-1", "vault/refresh/testdata/state-1", "vault/remote/testdata/kept-1", "vault/sealed/testdata",
}

// TestGoldenFilesStay: no file that a version once wrote is made again by a later one, which would then only read its
// own. A new format has a new file, and a new line in testdata/SUMS, which sha256sum(1) writes.
func TestGoldenFilesStay(t *testing.T) {
	sums, err := os.Open("testdata/SUMS")
	if err != nil {
		t.Fatal(err)
	}
	defer sums.Close() // read only
	known := map[string]string{}
	for s := bufio.NewScanner(sums); s.Scan(); {
		sum, file, ok := strings.Cut(s.Text(), "  ")
		if !ok {
			t.Fatalf("testdata/SUMS: %q", s.Text())
		}
		known[file] = sum
	}
	for _, dir := range golden {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			file := strings.TrimPrefix(filepath.ToSlash(path), "../")
			switch sum := fmt.Sprintf("%x", sha256.Sum256(text)); known[file] {
			case sum:
			case "":
				t.Errorf("%s is new; in the top directory: sha256sum %s >>daemon/testdata/SUMS", file, file)
			default:
				t.Errorf("%s was changed, and what a version once wrote stays as it was; put it back: git checkout -- %s", file, file)
			}
			delete(known, file)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for file := range known {
		t.Errorf("%s is in testdata/SUMS and is gone", file)
	}
}
