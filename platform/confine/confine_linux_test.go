package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary runs itself again to be confined: there is no way back.
const confinedEnv = "CONFINE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(confinedEnv); dir != "" {
		os.Exit(confined(dir))
	}
	os.Exit(m.Run())
}

func TestReader(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"allowed", "denied"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d, "file"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "single"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), confinedEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "built with cgo") {
		t.Skip("this test binary has cgo; run: CGO_ENABLED=0 go test ./platform/confine")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// confined is the child's main: it says what it could do and should not have.
func confined(dir string) int {
	// Threads that exist before the call must be confined too.
	hold := make(chan struct{})
	var up, done sync.WaitGroup
	bad := make(chan string, 1000)
	for range 8 {
		up.Add(1)
		done.Go(func() {
			up.Done()
			<-hold
			for range 20 {
				check(dir, bad)
			}
		})
	}
	up.Wait()
	how, err := Reader(filepath.Join(dir, "allowed"), filepath.Join(dir, "single"), filepath.Join(dir, "missing"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(how)
	if !strings.Contains(how, "Landlock ") || strings.Contains(how, "no Landlock") {
		return 0 // the parent logs it: this kernel has none
	}
	close(hold)
	done.Wait()
	close(bad)
	n := 0
	for b := range bad {
		fmt.Println(b)
		n++
	}
	return min(n, 1)
}

func check(dir string, bad chan<- string) {
	denied := func(what string, err error) {
		if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
			select {
			case bad <- fmt.Sprintf("%s: got %v, want a refusal", what, err):
			default:
			}
		}
	}
	allowed := func(what string, err error) {
		if err != nil {
			select {
			case bad <- fmt.Sprintf("%s: %v", what, err):
			default:
			}
		}
	}
	_, err := os.ReadFile(filepath.Join(dir, "allowed", "file"))
	allowed("read beneath an allowed path", err)
	_, err = os.ReadFile(filepath.Join(dir, "single"))
	allowed("read an allowed file", err)
	_, err = os.ReadFile(filepath.Join(dir, "denied", "file"))
	denied("read elsewhere", err)
	_, err = os.ReadFile("/etc/passwd")
	denied("read /etc/passwd", err)
	denied("write", os.WriteFile(filepath.Join(dir, "allowed", "new"), nil, 0o644))
	denied("truncate", os.Truncate(filepath.Join(dir, "allowed", "file"), 0))
	denied("remove", os.Remove(filepath.Join(dir, "allowed", "file")))
	denied("execute", exec.Command("/bin/true").Run())
	if nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || nnp != 1 {
		allowed("no_new_privs", fmt.Errorf("got %d, %v", nnp, err))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	allowed("TCP", err)
	if err == nil {
		_ = l.Close() // nobody waits for it
	}
}
