//go:build linux

package memscan

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/platform/lockmem"

	"golang.org/x/crypto/nacl/secretbox"
)

// Children of this test binary, by the value of MEMSCAN_CHILD. Each reads a secret of 32 octets from
// its standard input straight into locked memory, says what its memory is, and waits to be ended.
var children = map[string]func(b *lockmem.Buffer){
	"holds":   func(*lockmem.Buffer) {},
	"planted": func(b *lockmem.Buffer) { planted = bytes.Clone(b.Bytes()) },
	"json": func(b *lockmem.Buffer) {
		text, err := json.Marshal(map[string][]byte{"p": b.Bytes()})
		if err != nil {
			panic(err)
		}
		planted = text
	},
	"piece": func(b *lockmem.Buffer) { planted = bytes.Clone(b.Bytes()[10:18]) },
}

// planted keeps a child's copy where the collector leaves it.
var planted []byte

func TestMain(m *testing.M) {
	if f, ok := children[os.Getenv("MEMSCAN_CHILD")]; ok {
		if err := child(f); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(f func(b *lockmem.Buffer)) error {
	a, err := lockmem.New(2)
	if err != nil {
		return err
	}
	key, err := a.Key()
	if err != nil {
		return err
	}
	if err := key.Random(32); err != nil {
		return err
	}
	ctx := context.Background()
	return a.Borrow(ctx, func(b *lockmem.Buffer) error {
		if err := b.ReadFull(os.Stdin, 32); err != nil {
			return err
		}
		f(b)
		if err := work(ctx, a, key, b); err != nil {
			return err
		}
		fmt.Println(a.Backend())
		_, err := io.Copy(io.Discard, os.Stdin)
		runtime.KeepAlive(planted)
		return err
	})
}

// work seals the secret and opens it many times, with the collector at work beside it.
func work(ctx context.Context, a *lockmem.Arena, key, secret *lockmem.Buffer) error {
	var nonce [24]byte
	var box []byte
	err := a.Borrow(ctx, func(*lockmem.Buffer) error {
		box = secretbox.Seal(nil, secret.Bytes(), &nonce, key.Key())
		return nil
	})
	if err != nil {
		return err
	}
	for i := range 2000 {
		done := make(chan error)
		go func() { // each with a new, small stack
			done <- a.Borrow(ctx, func(b *lockmem.Buffer) error {
				if _, ok := secretbox.Open(b.Room(), box, &nonce, key.Key()); !ok {
					return errors.New("does not open")
				}
				return nil
			})
		}()
		if err := <-done; err != nil {
			return err
		}
		if i%100 == 0 {
			runtime.GC()
		}
	}
	return nil
}

// start runs a child with a random secret and returns its pid, its backend and the secret.
func start(t *testing.T, name string) (pid int, backend string, secret []byte) {
	t.Helper()
	secret = make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "MEMSCAN_CHILD="+name)
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
	t.Cleanup(func() {
		defer cancel()
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	if _, err := in.Write(secret); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "error") {
		t.Fatalf("child: %q, %v", line, err)
	}
	return cmd.Process.Pid, strings.TrimSpace(line), secret
}

func TestScanFindsPlantedCopies(t *testing.T) {
	for name, form := range map[string]string{"planted": "raw", "json": "base64+0", "piece": "fragment"} {
		t.Run(name, func(t *testing.T) {
			pid, _, secret := start(t, name)
			hits, err := Scan(pid, Needles(secret))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(hits, func(h Hit) bool { return h.Form == form && !strings.Contains(h.Mapping, "secretmem") }) {
				t.Errorf("no %s form among %v", form, hits)
			}
			other := slices.Clone(secret)
			slices.Reverse(other)
			if hits, err := Scan(pid, Needles(other)); err != nil || len(hits) != 0 {
				t.Errorf("a secret that is nowhere: %v, %v", hits, err)
			}
		})
	}
}

func TestScanFindsNothingInSecretMemory(t *testing.T) {
	pid, backend, secret := start(t, "holds")
	if backend != lockmem.MemfdSecret {
		const how = "this kernel has no memfd_secret (the child's memory is %q); Linux 6.5 and later have it: boot one with secretmem.enable=y"
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatalf(how, backend)
		}
		t.Skipf(how, backend)
	}
	hits, err := Scan(pid, Needles(secret))
	if err != nil {
		t.Fatal(err)
	}
	if len(hits) != 0 {
		t.Errorf("found %v", hits)
	}
}

func TestScanErrors(t *testing.T) {
	if _, err := Scan(1<<22+1, Needles([]byte("01234567"))); err == nil {
		t.Error("a process that is not there was scanned")
	}
}

func TestNeedles(t *testing.T) {
	secret := "p\"ss <wörd> 7é"
	b := []byte(secret)
	escaped, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	utf16le := func() (out []byte) {
		for _, r := range secret {
			out = append(out, byte(r), byte(r>>8))
		}
		return out
	}()
	cases := map[string]struct{ form, text string }{
		"raw":        {"raw", "xx" + secret + "yy"},
		"json":       {"json", string(escaped)},
		"utf-16":     {"utf-16le", "zz" + string(utf16le)},
		"hex":        {"hex", hex.EncodeToString(b)},
		"HEX":        {"HEX", strings.ToUpper(hex.EncodeToString(b))},
		"base64+0":   {"base64+0", base64.StdEncoding.EncodeToString([]byte(secret + "tail"))},
		"base64+1":   {"base64+1", base64.StdEncoding.EncodeToString([]byte("x" + secret + "ta"))},
		"base64+2":   {"base64+2", base64.StdEncoding.EncodeToString([]byte("xy" + secret + "t"))},
		"the middle": {"fragment", "...." + secret[3:11] + "...."},
		"the end":    {"fragment", "...." + secret[len(secret)-8:]},
	}
	x := newIndex(Needles(b))
	dir := t.TempDir()
	for name, c := range cases {
		var forms []string
		x.find([]byte(c.text), 0, len(c.text), func(_ int, form string) { forms = append(forms, form) })
		if !slices.ContainsFunc(forms, func(f string) bool { return f == c.form }) {
			t.Errorf("%s: found %q in %q", name, forms, c.text)
		}
		path := filepath.Join(dir, "sub", strings.ReplaceAll(name, " ", "-"))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(c.text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	hits, err := ScanFiles(Needles(b), dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{}
	for _, h := range hits {
		files[h.Mapping] = true
		if strings.Contains(h.String(), secret[:4]) {
			t.Errorf("a hit shows the secret: %s", h)
		}
	}
	if len(files) != len(cases) {
		t.Errorf("found in %d files of %d: %v", len(files), len(cases), hits)
	}
}

// TestPieces: wherever a secret lies in a long file, and across which pieces of it, it is found once.
func TestPieces(t *testing.T) {
	secret := make([]byte, 40)
	if _, err := rand.Read(secret); err != nil {
		t.Fatal(err)
	}
	needles := Needles(secret)
	x := newIndex(needles)
	for _, size := range []int{40, 41, chunk, chunk + x.longest + 50, 2*chunk + 13} {
		for _, from := range []int{0, 1, size - 40, size - 41, chunk - 20, chunk + x.longest - 20, chunk + 1} {
			if from < 0 || from+40 > size {
				continue
			}
			data := make([]byte, size)
			copy(data[from:], secret)
			for _, step := range []int{chunk, 777_777} {
				s := x.stream("m")
				for rest := data; len(rest) > 0; {
					n := copy(s.room()[:min(step, len(s.room()))], rest)
					s.advance(n)
					rest = rest[n:]
				}
				s.finish()
				if want := []Hit{{"raw", "m", int64(from)}}; !slices.Equal(s.hits, want) {
					t.Errorf("size %d, step %d: found %v, want %v", size, step, s.hits, want)
				}
			}
		}
	}
}

func TestSpeed(t *testing.T) {
	random := make([]byte, 16)
	var needles []Needle
	for range 1000 {
		if _, err := rand.Read(random); err != nil {
			t.Fatal(err)
		}
		needles = append(needles, Needles([]byte(hex.EncodeToString(random)))...)
	}
	data := make([]byte, 100<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	x := newIndex(needles)
	begin := time.Now()
	x.find(data, 0, len(data), func(int, string) { t.Error("found") })
	took := time.Since(begin)
	t.Logf("%d needles, 100 MiB: %v", len(needles), took)
	if took > 8*time.Second {
		t.Errorf("100 MiB took %v", took)
	}
}

func TestShortSecretsAreOurFault(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Needles([]byte("1234567"))
}
