package keeper

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
	"batchwarden/platform/pam"
)

// TestVerify: whose password may be tried, how many at a time, and that it has to be in a pipe. What PAM says is tested
// in package pam, and with the daemon.
func TestVerify(t *testing.T) {
	needRoot(t)
	const helper = world + "/bin/batchwarden-pam-verify"
	if out, err := exec.Command("../../pam/helper/compile", helper).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := configure(t)
	c.PAM = pam.Program(helper)
	c.Target = func(a account.Account) error {
		if a.Name != "payroll" {
			return errors.New("not a target")
		}
		return nil
	}
	b := start(t, c)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close() // nobody reads what is left
	refused := func(when, code string, v launch.Verify, password *os.File) {
		t.Helper()
		_, err := b.launcher.Verify(t.Context(), v, password)
		if r, _ := errors.AsType[*launch.Refused](err); r == nil || r.Code != code {
			t.Errorf("%s: got %v, want %s", when, err, code)
		}
	}
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() // only read
	refused("not in a pipe", launch.CodeInvalid, launch.Verify{Account: "payroll", Service: "login"}, file)
	refused("nobody", launch.CodeInvalid, launch.Verify{Service: "login"}, read)
	refused("no target", launch.CodeRefused, launch.Verify{Account: "root", Service: "login"}, read)
	refused("no account", launch.CodeMissing, launch.Verify{Account: "ghost", Service: "login"}, read)

	// PAM's program waits for the end of the password.
	type answer struct {
		launch.Verified
		error
	}
	first := make(chan answer, 1)
	busy := func(err error) bool {
		r, _ := errors.AsType[*launch.Refused](err)
		return r != nil && r.Code == launch.CodeOverloaded
	}
	go func() { // ends with the pipe
		v, err := launch.Verified{}, error(&launch.Refused{Code: launch.CodeOverloaded})
		for busy(err) { // by one of those below
			v, err = b.launcher.Verify(t.Context(), launch.Verify{Account: "payroll", Service: "login"}, read)
		}
		first <- answer{v, err}
	}()
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := b.launcher.Verify(t.Context(), launch.Verify{Account: "payroll", Service: "no-such-service"}, read)
		if busy(err) {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("a second password is tried beside the first: %v", err)
		}
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if a := <-first; a.error != nil || a.Outcome != launch.VerifyUntried {
		t.Errorf("no password came: got %+v", a)
	}
}

// TestVerifyWithoutLimits: a launcher that was told no limits tries no password.
func TestVerifyWithoutLimits(t *testing.T) {
	b := newBed(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()  // nobody reads it
	defer write.Close() // nothing was written
	_, err = b.launcher.Verify(t.Context(), launch.Verify{Account: "payroll", Service: "login"}, read)
	if r, _ := errors.AsType[*launch.Refused](err); r == nil || r.Code != launch.CodeRefused {
		t.Errorf("got %v", err)
	}
}
