package hostkey

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"batchwarden/platform/lockmem"
	"batchwarden/platform/memscan"
)

const childEnv, tpmEnv, leakEnv = "HOSTKEY_CHILD", "HOSTKEY_TPM", "HOSTKEY_LEAK"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := holder(spec); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// leak is a copy of the key where a careless program would have one.
var leak []byte

// holder has a key for as long as its input is open. "pipe" is the key that comes on descriptor 3.
func holder(spec string) error {
	a, err := lockmem.New(2)
	if err != nil {
		return err
	}
	places := Places{TPM: os.Getenv(tpmEnv)}
	var k *Key
	if spec == "pipe" {
		k, err = Receive(os.NewFile(3, "pipe"), TPM2, a)
	} else {
		k, err = places.Open(spec, true, a)
	}
	if err != nil {
		return err
	}
	if os.Getenv(leakEnv) != "" {
		leak = bytes.Clone(k.KEK.Bytes())
	}
	fmt.Println(a.Backend(), k.ID)
	_, err = io.Copy(io.Discard, os.Stdin)
	a.Drop(k.KEK)
	return err
}

// wholeMemory skips a test where a scan would read what the race detector maps: terabytes of nothing.
func wholeMemory(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("reads all of a process's memory; run: go test without -short and -race")
	}
}

// hits looks for the key in the memory of a process that has it.
func hits(t *testing.T, spec string, places Places, key []byte, leak bool) []memscan.Hit {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+spec, tpmEnv+"="+places.TPM)
	if leak {
		cmd.Env = append(cmd.Env, leakEnv+"=1")
	}
	if spec == "pipe" {
		cmd.ExtraFiles = []*os.File{pipeWith(t, key)}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var found []memscan.Hit
	if err == nil && strings.HasPrefix(line, lockmem.MemfdSecret+" ") {
		found, err = memscan.Scan(cmd.Process.Pid, memscan.Needles(key))
	}
	if closeErr := in.Close(); closeErr != nil {
		t.Error(closeErr)
	}
	if waitErr := cmd.Wait(); err != nil || waitErr != nil {
		t.Fatalf("%s: %q, %v, %v", spec, line, err, waitErr)
	}
	if !strings.HasPrefix(line, lockmem.MemfdSecret+" ") {
		const how = "the memory for keys is %q here, in which a scan finds them; run it on Linux 6.5 or later"
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatalf(how, line)
		}
		t.Skipf(how, line)
	}
	return found
}

// TestKeysAreNowhereElse: whichever way a key comes, it is in locked memory and nowhere else.
func TestKeysAreNowhereElse(t *testing.T) {
	wholeMemory(t)
	a, tpm, dir := arena(t), swtpm(t), t.TempDir()
	key := func(spec string) []byte {
		k, err := tpm.Create(spec, nil, a)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Drop(k.KEK)
		return bytes.Clone(k.KEK.Bytes())
	}
	for _, spec := range []string{"keyfile:" + dir + "/key", "tpm2:" + dir + "/tpm", "pipe"} {
		text := bytes.Repeat([]byte("k3y-0f-"), 5)[:Size]
		if spec != "pipe" {
			text = key(spec)
		}
		if found := hits(t, spec, tpm, text, true); len(found) == 0 {
			t.Fatalf("%s: the scan does not find a copy that is there", spec)
		}
		if found := hits(t, spec, tpm, text, false); len(found) != 0 {
			t.Errorf("%s: %v", spec, found)
		}
	}
}

// TestMakingLeavesNoCopy: nor where a key is made, of which the test learns afterwards.
func TestMakingLeavesNoCopy(t *testing.T) {
	wholeMemory(t)
	tpm, dir := swtpm(t), t.TempDir()
	for _, spec := range []string{"keyfile:" + dir + "/key", "tpm2:" + dir + "/tpm"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+spec, tpmEnv+"="+tpm.TPM)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		var found []memscan.Hit
		if err == nil {
			a := arena(t)
			k, openErr := tpm.Open(spec, false, a)
			if err = openErr; err == nil {
				if !strings.Contains(line, k.ID) {
					t.Errorf("%s: it made another key: %q, %s", spec, line, k.ID)
				}
				found, err = memscan.Scan(cmd.Process.Pid, memscan.Needles(bytes.Clone(k.KEK.Bytes())))
				a.Drop(k.KEK)
			}
		}
		if closeErr := in.Close(); closeErr != nil {
			t.Error(closeErr)
		}
		if waitErr := cmd.Wait(); err != nil || waitErr != nil {
			t.Fatalf("%s: %q, %v, %v", spec, line, err, waitErr)
		}
		if strings.HasPrefix(line, lockmem.MemfdSecret+" ") && len(found) != 0 {
			t.Errorf("%s: %v", spec, found)
		}
	}
}

// TestBus: who listens on the way to the TPM does not learn the key.
func TestBus(t *testing.T) {
	a, tpm, dir := arena(t), swtpm(t), t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var heard bytes.Buffer
	ended := make(chan struct{})
	go func() { // ends when the listener is closed
		defer close(ended)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			relay(t, c, strings.TrimPrefix(tpm.TPM, "unix:"), &mu, &heard)
		}
	}()
	tapped := Places{TPM: "unix:" + listener.Addr().String()}
	k, err := tapped.Create("tpm2:"+dir+"/key", nil, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(k.KEK)
	again, err := tapped.Open("tpm2:"+dir+"/key", false, a)
	if err != nil {
		t.Fatal(err)
	}
	a.Drop(again.KEK)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if heard.Len() < 1000 {
		t.Fatalf("only %d octets were heard", heard.Len())
	}
	for i := range Size - 7 {
		if bytes.Contains(heard.Bytes(), k.KEK.Bytes()[i:i+8]) {
			t.Fatal("the key crossed the bus in the clear")
		}
	}
}

// relay passes everything on between a connection and the TPM until one side ends, and keeps it.
func relay(t *testing.T, c net.Conn, to string, mu *sync.Mutex, heard *bytes.Buffer) {
	d, err := net.DialTimeout("unix", to, 5*time.Second)
	if err != nil {
		t.Error(err)
		_ = c.Close()
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, d}, {d, c}} {
		both.Go(func() {
			b := make([]byte, 4096)
			for {
				n, err := way[0].Read(b)
				mu.Lock()
				heard.Write(b[:n])
				mu.Unlock()
				if _, writeErr := way[1].Write(b[:n]); err != nil || writeErr != nil {
					_, _ = way[0].Close(), way[1].Close() // both ways end together
					return
				}
			}
		})
	}
	both.Wait()
}
