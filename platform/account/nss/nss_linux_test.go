package nss

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"batchwarden/platform/account"
)

// TestDoesNotAnswer: a source that hangs, or says that it cannot answer, is not one that does not know the account. The
// C library alone says in most of these that there is none, or gives an account without some of its groups.
func TestDoesNotAnswer(t *testing.T) {
	furnished(t)
	for _, source := range []string{"trial", "plain"} {
		for _, order := range []string{"files " + source, source + " files"} {
			configure(t, "passwd: "+order, "group: "+order)
			for _, mode := range []string{"hang", "unavail", "tryagain", "exit", "groups hang", "groups unavail", "groups tryagain"} {
				put(t, "/etc/"+source+".mode", mode)
				r := open(t, helper)
				if strings.HasSuffix(mode, "hang") {
					r.r.timeout = 700 * time.Millisecond
				}
				var asked sync.WaitGroup
				for _, name := range []string{"far", "local", "ghost"} {
					asked.Go(func() {
						a, err := r.Lookup(name)
						if name == "ghost" && strings.HasPrefix(mode, "groups") {
							if !errors.Is(err, account.ErrMissing) {
								t.Errorf("%s, %s: %q: got %+v, %v", order, mode, name, a, err)
							}
						} else if !errors.Is(err, account.ErrSilent) || errors.Is(err, account.ErrMissing) {
							t.Errorf("%s, %s: %q: got %+v, %v", order, mode, name, a, err)
						}
					})
				}
				asked.Wait()
				if mode != "exit" {
					continue
				}
				put(t, "/etc/"+source+".mode", "")
				if a, err := r.Lookup("far"); err != nil || len(a.Groups) != 3 {
					t.Errorf("%s: after it works again: %+v, %v", order, a, err)
				}
			}
			put(t, "/etc/"+source+".mode", "")
		}
	}
}

// TestHangHoldsOneUp: a question that hangs holds up nobody who asks something else, and leaves no process.
func TestHangHoldsOneUp(t *testing.T) {
	furnished(t)
	configure(t, "passwd: files trial", "group: files")
	r := open(t, helper)
	if _, err := r.Lookup("far"); err != nil {
		t.Fatal(err)
	}
	put(t, "/etc/trial.mode", "hang")
	var stuck sync.WaitGroup
	stuck.Go(func() {
		if _, err := r.Lookup("nogroups"); !errors.Is(err, account.ErrSilent) {
			t.Errorf("got %v", err)
		}
	})
	eventually(t, "nobody asks", func() bool { return len(r.r.asking) == 1 })
	if _, err := r.Lookup("local"); err != nil {
		t.Error(err)
	}
	r.r.mu.Lock()
	var pid int
	for p := range r.r.busy {
		pid = p.cmd.Process.Pid
	}
	r.r.mu.Unlock()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	stuck.Wait()
	if err := syscall.Kill(pid, 0); pid == 0 || !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the program %d is still there: %v", pid, err)
	}
	if _, err := r.Fresh("far"); !errors.Is(err, account.ErrSilent) {
		t.Errorf("a closed resolver: %v", err)
	}
}

// TestRemembered: an answer of another source is used again for a moment, but not by Fresh, and not when a file changed.
func TestRemembered(t *testing.T) {
	furnished(t)
	configure(t, "passwd: files trial", "group: files trial")
	r := open(t, helper)
	first, err := r.Lookup("far")
	if err != nil {
		t.Fatal(err)
	}
	if err := account.Confirm(r, first); err != nil {
		t.Errorf("nothing changed: %v", err)
	}
	put(t, "/etc/trial.passwd", strings.Replace(farPasswd, "far:x:7000", "far:x:7777", 1))
	if a, err := r.Lookup("far"); err != nil || a.UID != 7000 {
		t.Errorf("a moment later: got %+v, %v", a, err)
	}
	if err := account.Confirm(r, first); !errors.Is(err, account.ErrChanged) {
		t.Errorf("the uid changed: got %v", err)
	}
	if a, err := r.Lookup("far"); err != nil || a.UID != 7777 {
		t.Errorf("after somebody asked: got %+v, %v", a, err)
	}
	put(t, "/etc/trial.passwd", "")
	put(t, "/etc/group", localGroup()+"more:x:4999:far\n")
	if a, err := r.Lookup("far"); !errors.Is(err, account.ErrMissing) {
		t.Errorf("after a file changed: got %+v, %v", a, err)
	}
	if err := account.Confirm(r, first); !errors.Is(err, account.ErrMissing) {
		t.Errorf("deleted: got %v", err)
	}
	put(t, "/etc/trial.passwd", farPasswd)
	if _, err := r.Lookup("far"); err != nil {
		t.Errorf("that it was missing was remembered: %v", err)
	}
	r.r.timeout = time.Second
	for k, v := range r.r.kept { // as if it were later
		v.until = time.Now().Add(-1)
		r.r.kept[k] = v
	}
	put(t, "/etc/trial.mode", "unavail")
	if a, err := r.Lookup("far"); !errors.Is(err, account.ErrSilent) {
		t.Errorf("after its time: got %+v, %v", a, err)
	}
}

// TestLocalIsCurrent: a change of the files shows at once, however fast one follows the other.
func TestLocalIsCurrent(t *testing.T) {
	furnished(t)
	configure(t, "passwd: files", "group: files")
	r := open(t, "/nonexistent")
	for i := range 300 {
		text := fmt.Sprintf("local:x:%d:4000::/:/bin/sh\n", 4000+i%10)
		if i%3 == 0 {
			put(t, "/etc/passwd", text)
		} else if err := os.WriteFile("/etc/passwd", []byte(text), 0o644); err != nil { // the same file and length
			t.Fatal(err)
		}
		if a, err := r.Lookup("local"); err != nil || a.UID != uint32(4000+i%10) {
			t.Fatalf("change %d: got %+v, %v", i, a, err)
		}
	}
	if _, err := r.Lookup("daemon"); !errors.Is(err, account.ErrMissing) {
		t.Errorf("got %v", err)
	}
	if err := os.Remove("/etc/group"); err != nil {
		t.Fatal(err)
	}
	if a, err := r.Lookup("local"); err == nil || errors.Is(err, account.ErrMissing) {
		t.Errorf("without a group file: got %+v, %v", a, err)
	}
}

// TestGroupsOfAMoment: what a group's name stood for holds for a Moment, and what an account is in shows at once.
func TestGroupsOfAMoment(t *testing.T) {
	furnished(t)
	configure(t, "passwd: files", "group: files")
	r := open(t, "/nonexistent")
	gid := func() uint32 {
		t.Helper()
		g, err := r.GroupByName("few")
		if err != nil {
			t.Fatal(err)
		}
		return g.GID
	}
	put(t, "/etc/group", localGroup()+"few:x:4500:local\n")
	begun := time.Now()
	before := gid()
	put(t, "/etc/group", localGroup()+"few:x:4501:local\n")
	if now := gid(); now != before && time.Since(begun) < Moment {
		t.Errorf("after a change it is %d at once: this test shows nothing", now)
	}
	if a, err := r.Lookup("local"); err != nil || !slices.Contains(a.GIDs(), 4501) {
		t.Errorf("the account: %+v, %v", a, err)
	}
	time.Sleep(Moment)
	if now := gid(); now != 4501 {
		t.Errorf("a moment later it is %d", now)
	}
	configure(t, "passwd: files", "group: trial")
	time.Sleep(Moment)
	if g, err := r.GroupByName("few"); err == nil || errors.Is(err, account.ErrMissing) {
		t.Errorf("where the files are not asked: %+v, %v", g, err)
	}
}

// TestSystemdHasMore: what systemd's source could add is left to it.
func TestSystemdHasMore(t *testing.T) {
	furnished(t)
	configure(t, "passwd: files systemd", "group: files systemd")
	without := open(t, "/nonexistent")
	known := func(name string) bool {
		_, err := without.Fresh(name)
		return !errors.Is(err, account.ErrSilent)
	}
	if !known("local") {
		t.Fatal("an account of the files is not known")
	}
	for _, c := range []struct {
		path         string
		found, other bool // whether an account of the files, and one that is not there, are known without systemd
	}{
		{"/run/systemd/userdb/io.systemd.DynamicUser", true, true},
		{"/run/systemd/dynamic-uid/61234", true, false},
		{"/run/systemd/machines/box", true, false},
		{"/run/systemd/userdb/io.systemd.Home", false, false},
		{"/etc/userdb/local:docker.membership", false, false},
		{"/var/run/nscd/socket", false, false},
	} {
		put(t, c.path, "")
		without.r.local.quiet[members] = time.Now().Add(time.Hour)
		if _, err := without.Lookup("local"); (err == nil) != !strings.Contains(c.path, "nscd") {
			t.Errorf("with %s, while it is remembered: %v", c.path, err)
		}
		if found, other := known("local"), known("ghost"); found != c.found || other != c.other {
			t.Errorf("with %s: an account of the files is known %v, another %v", c.path, found, other)
		}
		if err := os.Remove(c.path); err != nil {
			t.Fatal(err)
		}
		if !known("local") || !known("ghost") || known("nobody") {
			t.Errorf("without %s again", c.path)
		}
	}
}

// TestOddFiles holds what we read from files that no tool wrote against the C library: where we dare to answer, it must
// be the same.
func TestOddFiles(t *testing.T) {
	furnished(t)
	configure(t, "passwd: files", "group: files")
	const seed = 1
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	often := func(usual string, of ...string) string {
		if random.IntN(12) > 0 {
			return usual
		}
		return pick(of...)
	}
	odd := []string{"", " ", "+", "-", "#", "a b", "\t", "+a", "-b", "0", "-1", "+5", "08", "4294967295", "4294967296", "99999999999999999999", "5 ", " 5", "x\x00y", "\xff", "é", "a:b", "\r"}
	name := func() string { return often(pick("a", "b", "c"), odd...) }
	id := func() string { return often(pick("5", "6", "7", "1000"), odd...) }
	r := open(t, helper)
	dared, answered := 0, 0
	for range 600 {
		var passwd, group strings.Builder
		for range random.IntN(4) {
			passwd.WriteString(often("", "#", " ", "\n", "a:x:9\n", "::::::\n") + strings.Join([]string{name(), "x", id(), id(), often("", odd...), often("/", odd...), often("/bin/sh", odd...)}, ":") + often("\n", ":\n", "\r\n", " \n", ""))
		}
		for range random.IntN(4) {
			group.WriteString(often("", "#", " ", "\n", "+\n") + strings.Join([]string{name(), "x", id(), strings.Join([]string{name(), name(), name()}, often(",", ", ", ",,", " ,"))}, ":") + often("\n", ",\n", ":\n", " \n", ""))
		}
		put(t, "/etc/passwd", passwd.String())
		put(t, "/etc/group", group.String())
		for _, who := range []string{"a", "b", "c", "x"} {
			got, err := r.r.local.lookup(who, true)
			answered++
			if errors.Is(err, errElsewhere) {
				continue
			}
			dared++
			want, wantErr := r.r.account(who, errElsewhere, false, "u", who)
			if errors.Is(err, account.ErrMissing) != errors.Is(wantErr, account.ErrMissing) || !got.Equal(want) || got.OwnGroup != want.OwnGroup {
				t.Fatalf("%q in %q and %q: got %+v, %v; the C library %+v, %v", who, passwd.String(), group.String(), got, err, want, wantErr)
			}
		}
	}
	if dared*5 < answered || dared == answered {
		t.Errorf("dared to answer %d of %d: this tests little", dared, answered)
	}
}

// TestManyAtOnce: more questions at the same time than programs may run.
func TestManyAtOnce(t *testing.T) {
	furnished(t)
	configure(t, "passwd: files trial", "group: files trial")
	r := open(t, helper)
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			name, groups := "far", 3
			if i%2 == 0 {
				name, groups = "many", 42
			}
			if a, err := r.Fresh(name); err != nil || len(a.Groups) != groups {
				t.Errorf("got %+v, %v", a, err)
			}
		})
	}
	all.Wait()
	if n := len(r.r.idle); n == 0 || n > maxPrograms {
		t.Errorf("%d programs wait", n)
	}
}

func TestAnswers(t *testing.T) {
	for _, text := range []string{"", "found", "found\x00", "found\x00a\x001\x001\x00/\x00\x00\x00", "found\x00\x001\x001\x00/\x00\x00\x001\x00a\x00",
		"found\x00a\x004294967295\x001\x00/\x00\x00\x001\x00a\x00", "found\x00a\x001\x001\x00/\x00\x00\x002\x00a\x00", "found\x00a\x001\x001\x00/\x00\x00\x001\x00",
		"other\x00", "missing\x00more\x00", "silent\x00"} {
		f, err := fields([]byte(text))
		if err == nil {
			_, err = toAccount(f)
		}
		if !errors.Is(err, errAnswer) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	furnished(b)
	run := func(name, lines, who string, fresh bool, program string) {
		configure(b, strings.Split(lines, "\n")...)
		time.Sleep(1100 * time.Millisecond) // files that have just changed are read each time
		r := open(b, program)
		b.Run(name, func(b *testing.B) {
			ask := r.Lookup
			if fresh {
				ask = r.Fresh
			}
			for b.Loop() {
				if _, err := ask(who); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("files_systemd_soon", "passwd: files systemd\ngroup: files systemd", "many", false, "/nonexistent")
	run("files", "passwd: files\ngroup: files", "many", true, "/nonexistent")
	run("files_systemd", "passwd: files systemd\ngroup: files systemd", "many", true, "/nonexistent")
	run("program", "passwd: files trial\ngroup: files trial", "far", true, helper)
	run("program_40_groups", "passwd: files trial\ngroup: files trial", "many", true, helper)
	run("remembered", "passwd: files trial\ngroup: files trial", "far", false, helper)
	b.Run("before", func(b *testing.B) {
		for b.Loop() {
			if _, err := account.Lookup("many"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			r := New(helper)
			if _, err := r.Lookup("far"); err != nil {
				b.Fatal(err)
			}
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestLarge: an account in hundreds of groups, one of which has very many members.
func TestLarge(t *testing.T) {
	furnished(t)
	var group strings.Builder
	for i := range 300 {
		fmt.Fprintf(&group, "h%d:x:%d:far\n", i, 10000+i)
	}
	group.WriteString("huge:x:8000:" + strings.Repeat("somebody,", 30000) + "far\n")
	for _, source := range []string{"trial", "plain"} {
		put(t, "/etc/"+source+".group", group.String())
		configure(t, "passwd: files "+source, "group: files "+source)
		r := open(t, helper)
		r.r.timeout = time.Minute
		a, err := r.Lookup("far")
		if err != nil || len(a.Groups) != 302 || sorted(a.GIDs()) != id(t, "far") {
			t.Errorf("%s: got %d groups, %v", source, len(a.Groups), err)
		}
		if g, err := r.GroupByName("huge"); err != nil || g.GID != 8000 {
			t.Errorf("%s: got %+v, %v", source, g, err)
		}
	}
}

// TestQuestions: what is no question has no answer, and the next one has.
func TestQuestions(t *testing.T) {
	furnished(t)
	configure(t, "passwd: files", "group: files")
	until := time.Now().Add(10 * time.Second)
	p, err := start(helper, stamp{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	for _, q := range []string{"", "u", "u\x00local\x00files:rccc\x00", "u\x00local\x00files:rccc\x00files:rccc", "\x00\x00\x00"} {
		if f, err := p.ask([]byte(q), until); err != nil || f[0] != "silent" {
			t.Errorf("%q: got %q, %v", q, f, err)
		}
	}
	for _, sources := range []string{"", ":", "files", "files:", "files:xxxx", "files:rcccc", strings.Repeat("f", 100) + ":rccc", "../x:rccc"} {
		if f, err := p.ask(message("u", "local", sources, sources), until); err != nil || f[0] == "missing" {
			t.Errorf("%q: got %q, %v", sources, f, err)
		}
	}
	if f, err := p.ask(message("u", "local", "files:rccc", "files:rccc"), until); err != nil || f[0] != "found" {
		t.Errorf("got %q, %v", f, err)
	}
	if f, err := p.ask(make([]byte, 5000), until); err == nil {
		t.Errorf("a question without end: got %q", f)
	}
}

func TestConf(t *testing.T) {
	for _, c := range []struct{ text, accounts, groups, members string }{
		{"", "files:rccc", "files:rccc", "files:cccc"},
		{"passwd:\tfiles sss # not\n # passwd: ldap\nGROUP: x\nhosts: files", "files:rccc sss:rccc", "files:rccc", "files:cccc"},
		{"passwd:files[NOTFOUND=return]sss\ngroup: a [success=merge unavail=return] b\ninitgroups: c [!success=return]", "files:rrcc sss:rccc", "a:ccrc b:rccc", "c:rrrr"},
		{"passwd: files [!UNAVAIL=return !NOTFOUND=continue] sss", "files:crcc sss:rccc", "files:rccc", "files:cccc"},
		{"passwd:\ngroup: x", "", "x:rccc", "x:cccc"},
	} {
		got, err := parseConf([]byte(c.text))
		if err != nil || got.accounts.String() != c.accounts || got.groups.String() != c.groups || got.members.String() != c.members {
			t.Errorf("%q: got %+v, %v", c.text, got, err)
		}
	}
	for _, text := range []string{"passwd: [NOTFOUND=return] files", "passwd: files [NOTFOUND=return", "passwd: files [x=return]", "passwd: files [NOTFOUND]",
		"passwd: files [NOTFOUND=perhaps]", "passwd: ../x", "passwd: a:b", "passwd: files\npasswd: sss", "group: " + strings.Repeat("x", 64)} {
		if got, err := parseConf([]byte(text)); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}
