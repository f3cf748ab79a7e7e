package hostkey

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// swtpm starts a TPM of this test's own, and returns where it answers. It ends with the test.
func swtpm(t *testing.T) Places {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		const why = "needs swtpm; run: apt-get install swtpm"
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	// Not t.TempDir, whose name may be longer than a socket's may be.
	dir, err := os.MkdirTemp("", "bw-tpm")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	var said bytes.Buffer
	cmd := exec.Command(program, "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the test panics
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails only when it has ended
		_ = cmd.Wait()         // killed
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			return Places{TPM: "unix:" + socket}
		}
		if time.Now().After(deadline) {
			t.Fatalf("swtpm does not listen: %s", said.String())
		}
	}
}

func TestTPM2(t *testing.T) {
	a, tpm := arena(t), swtpm(t)
	path := t.TempDir() + "/key.tpm2"
	if _, err := tpm.Open("tpm2:"+path, false, a); !errors.Is(err, ErrMissing) {
		t.Fatalf("no key, none wanted: %v", err)
	}
	made, err := tpm.Open("tpm2:"+path, true, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(made.KEK)
	box, err := os.ReadFile(path)
	if err != nil || bytes.Contains(box, made.KEK.Bytes()[:8]) {
		t.Errorf("the file holds the key as it is, or: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o400 {
		t.Errorf("the file: %v, %v", info, err)
	}
	again, err := tpm.Open("tpm2:"+path, false, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(again.KEK)
	if again.ID != made.ID || again.Kind != TPM2 || !bytes.Equal(again.KEK.Bytes(), made.KEK.Bytes()) {
		t.Error("opened again it is another key")
	}
	if k, err := tpm.Create("tpm2:"+path, nil, a); !errors.Is(err, os.ErrExist) {
		t.Errorf("made over one that is there: %v, %v", k, err)
	}
	for i := range 20 { // more than a TPM has room for
		k, err := tpm.Open("tpm2:"+path, false, a)
		if err != nil {
			t.Fatalf("use %d: %v", i, err)
		}
		a.Drop(k.KEK)
	}
}

func TestTPM2Foreign(t *testing.T) {
	a, here, there := arena(t), swtpm(t), swtpm(t)
	path := t.TempDir() + "/key.tpm2"
	k, err := there.Create("tpm2:"+path, nil, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(k.KEK)
	if _, err := here.Open("tpm2:"+path, false, a); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "another TPM") {
		t.Fatalf("got %v, want ErrForeign", err)
	}
	box, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own, err := here.Open("tpm2:"+path, true, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(own.KEK)
	if own.ID == k.ID {
		t.Error("the other machine's key opened")
	}
	kept, err := filepath.Glob(path + ".foreign-*")
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept aside: %v, %v", kept, err)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(text, box) {
		t.Errorf("what is kept aside is not what was there: %v", err)
	}
}

// TestTPM2Damaged flips every octet of the file: none of it may open, or open as another key.
func TestTPM2Damaged(t *testing.T) {
	a, tpm := arena(t), swtpm(t)
	path := t.TempDir() + "/key.tpm2"
	k, err := tpm.Create("tpm2:"+path, nil, a)
	if err != nil {
		t.Fatal(err)
	}
	a.Drop(k.KEK)
	box, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, text []byte) {
		t.Helper()
		if err := errors.Join(os.Remove(path), os.WriteFile(path, text, 0o400)); err != nil {
			t.Fatal(err)
		}
		if k, err := tpm.Open("tpm2:"+path, false, a); err == nil {
			a.Drop(k.KEK)
			t.Errorf("%s: opened", what)
		}
	}
	for i := 0; i < len(box); i += 7 {
		flipped := bytes.Clone(box)
		flipped[i] ^= 1 << (i % 8)
		refused("one bit", flipped)
	}
	for _, n := range []int{0, 1, len(boxMagic), len(boxMagic) + 1, len(box) - 1} {
		refused("cut", box[:n])
	}
	refused("longer", append(bytes.Clone(box), 0))
	refused("much longer", append(bytes.Clone(box), make([]byte, maxBox)...))
}

func TestNoTPM(t *testing.T) {
	a, dir := arena(t), t.TempDir()
	for _, where := range []string{dir + "/none", "unix:" + dir + "/none"} {
		_, err := Places{TPM: where}.Open("tpm2:"+dir+"/key", true, a)
		if err == nil || errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "TPM") {
			t.Errorf("%s: %v", where, err)
		}
	}
}
