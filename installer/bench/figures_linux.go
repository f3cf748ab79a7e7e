package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// prepare starts the references and says what is measured against which.
func prepare(bed *testbed.Bed, quick bool) (t *table, err error) {
	t = &table{}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	keep := func(f *figure, stop func() error, err error) (*figure, error) {
		if stop != nil {
			t.closers = append(t.closers, stop)
		}
		return f, err
	}
	question := marshal(wire.Authorize{Realm: testbed.Realm, Subject: wire.Subject{User: testbed.User}, BatchUser: "payroll"})
	dir := filepath.Join(bed.Root, "bench")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	raw, err := keep(rawRoundTrip(dir))
	if err != nil {
		return nil, err
	}
	bare, err := keep(bareHTTP(dir, question))
	if err != nil {
		return nil, err
	}
	spawn, err := keep(posixSpawn(dir))
	why := ""
	if errors.Is(err, errNoCompiler) {
		spawn, why, err = nil, err.Error(), nil
	}
	if err != nil {
		return nil, err
	}
	client := bed.Client(bed.Accounts.LSAM)
	t.closers = append(t.closers, func() error { client.CloseIdleConnections(); return nil })
	line, err := toDaemon(bed)
	if err != nil {
		return nil, err
	}
	t.closers = append(t.closers, line.conn.Close)
	t.groups = []group{
		{reference: raw, figures: []*figure{repeated(bare)}},
		{reference: bare, figures: []*figure{authorize(client, question), retrieve(bed)}},
		{reference: spawn, why: why, figures: []*figure{launch(line)}},
	}
	if quick {
		for _, f := range t.all() {
			f.per = min(f.per, 10)
		}
	}
	return t, nil
}

// repeated is the same figure once more, where it is compared to another reference.
func repeated(f *figure) *figure { return &figure{name: f.name, per: f.per, once: f.once} }

// authorize is a decision over one kept connection.
func authorize(client *http.Client, question string) *figure {
	return &figure{name: "authorize, kept connection", per: 200, once: func() error {
		return post(client, "/v1/authorize", question, 200, allowed)
	}}
}

// retrieve is a password in the caller's hands. The service closes the
// connection after each, so each has one that was opened just before: opening
// it as another user takes a detour here that is none in real life.
func retrieve(bed *testbed.Bed) *figure {
	body := marshal(wire.Retrieve{Realm: testbed.Realm, Subject: wire.Subject{User: testbed.User}})
	opened := make(chan net.Conn, 1)
	open := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c, err := bed.Dial(ctx, bed.Accounts.LSAM)
		if err == nil {
			opened <- c
		}
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return <-opened, nil }}}
	once := func() error {
		return post(client, "/v1/batch-users/payroll/retrieve", body, 200, func(password []byte) error {
			if len(password) == 0 {
				return errors.New("an empty password")
			}
			return nil
		})
	}
	return &figure{name: "retrieve, on a connection just opened", per: 50, ready: open, once: once}
}

// launch is a job of /bin/true as another user, from the request to its known exit.
func launch(l *line) *figure {
	start := handwritten("POST", "/v1/jobs", marshal(wire.Launch{Realm: testbed.Realm, Subject: wire.Subject{User: testbed.User}, BatchUser: "payroll",
		Command: []string{"/bin/true"}, Stdio: "null"}))
	var job wire.Job
	once := func() error {
		job = wire.Job{}
		if err := l.want(start, http.StatusCreated, &job); err != nil {
			return err
		}
		id := job.ID
		for !job.Done() {
			job = wire.Job{}
			if err := l.want(handwritten("GET", "/v1/jobs/"+id+"?wait=30s", ""), http.StatusOK, &job); err != nil {
				return err
			}
		}
		if job.State != wire.Exited || job.ExitCode == nil || *job.ExitCode != 0 {
			return fmt.Errorf("job %s: state %s %s %s", id, job.State, job.Code, job.Reason)
		}
		return nil
	}
	return &figure{name: "launch of /bin/true to its known exit", per: 30, once: once}
}

func get(client *http.Client, path string, into any) error {
	response, err := client.Get("http://batchwarden" + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", path, response.StatusCode)
	}
	return json.NewDecoder(response.Body).Decode(into)
}

func marshal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic("bench: " + err.Error()) // our own types
	}
	return string(text)
}
