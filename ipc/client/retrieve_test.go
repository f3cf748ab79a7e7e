package client

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"batchwarden/ipc/wire"
)

const secretHeader = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n" +
	"Batchwarden-Username: svc-pay\r\nBatchwarden-Domain: CORP\r\nBatchwarden-Version: 7\r\n"

func TestRetrieve(t *testing.T) {
	secret := "p\x00ss\r\nw\xffrd\n"
	c := raw(t, secretHeader+"Batchwarden-Rotates-In: 90\r\nContent-Length: 11\r\n\r\n"+secret)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := c.Retrieve(t.Context(), "payroll", wire.Retrieve{Realm: "opcon"}, struct{ io.Writer }{w})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil || string(text) != secret {
		t.Errorf("got %q, %v; want %q and nothing more", text, err, secret)
	}
	want := Retrieved{wire.Secret{Username: "svc-pay", Domain: "CORP", Version: 7}, 90 * time.Second, 11}
	if *got != want {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

func TestRetrieveRequest(t *testing.T) {
	var got, kind string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got, kind = r.Method+" "+r.RequestURI+" "+string(body), r.Header.Get("Content-Type")
		w.Header().Set("Batchwarden-Version", "1")
		_, _ = io.WriteString(w, "x")
	})
	var out bytes.Buffer
	if _, err := c.Retrieve(t.Context(), "a b", wire.Retrieve{Realm: "r", Subject: wire.Subject{User: "u"}}, &out); err != nil {
		t.Fatal(err)
	}
	if want := `POST /v1/batch-users/a%20b/retrieve {"realm":"r","subject":{"user":"u"}}`; got != want || kind != isJSON {
		t.Errorf("got %s (%s), want %s", got, kind, want)
	}
	if out.String() != "x" {
		t.Errorf("got %q, want x", &out)
	}
}

// TestRetrieveCut: not an octet of a password that did not come whole is passed on.
func TestRetrieveCut(t *testing.T) {
	for name, answer := range map[string]string{
		"cut":        secretHeader + "Content-Length: 11\r\n\r\nhalf",
		"no length":  secretHeader + "\r\nhalf",
		"too long":   secretHeader + "Content-Length: 5000\r\n\r\n" + strings.Repeat("x", 5000),
		"no version": "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhalf",
		"odd time":   secretHeader + "Batchwarden-Rotates-In: soon\r\nContent-Length: 4\r\n\r\nhalf",
		"no content": "HTTP/1.1 204 No Content\r\n\r\n",
	} {
		var out bytes.Buffer
		if _, err := raw(t, answer).Retrieve(t.Context(), "n", wire.Retrieve{}, &out); err == nil || out.Len() > 0 {
			t.Errorf("%s: got %q, %v; want nothing and an error", name, &out, err)
		} else if strings.Contains(err.Error(), "half") {
			t.Errorf("%s: got %v, want nothing of the password in it", name, err)
		}
	}
}

func TestRetrieveWriter(t *testing.T) {
	c := raw(t, secretHeader+"Content-Length: 4\r\n\r\npass")
	if _, err := c.Retrieve(t.Context(), "n", wire.Retrieve{}, full{}); err == nil || !strings.Contains(err.Error(), errFull.Error()) {
		t.Errorf("got %v, want the writer's error", err)
	}
}
