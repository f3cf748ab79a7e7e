package remote

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
)

// TestGoldenKept: what an earlier worker sealed for the next one is used: no new login, and no secret_id unwrapped twice.
func TestGoldenKept(t *testing.T) {
	text, err := os.ReadFile("testdata/kept-1/kept.json")
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.TrimSuffix(string(text), "\n"))
	keys := &errand.Keys{}
	_, _ = rand.Read(keys.Token[:])
	token, err := sealed.SealToken(1, &keys.Token, text)
	if err != nil {
		t.Fatal(err)
	}
	var k keep
	k.restore(keys, &token)
	again, _ := json.Marshal(k.kept)
	if string(again) != string(text) {
		t.Errorf("got  %s\nwant %s", again, text)
	}
	s := k.usable("login of role x", time.Date(2026, 3, 4, 12, 0, 1, 0, time.UTC))
	if s == nil || s.Token != "hvs.golden" || s.Life != time.Hour || s.Full != 2*time.Hour || !s.Renew || !s.Machine {
		t.Errorf("the session is %+v", s)
	}
	if k.Secret == nil || k.Secret.SecretID != "golden" || k.Bad == nil || k.Asked != "third digest" || len(k.MarkKey) != markKeySize || k.MarkKey[31] != 31 {
		t.Errorf("kept is %+v", k.kept)
	}
}
