package main

import (
	"strings"
	"testing"
)

func TestRekeyedText(t *testing.T) {
	for _, c := range []struct {
		r    rekeyed
		want []string
	}{
		{rekeyed{Key: "tpm2:/srv/bw/key.tpm2", Kind: "tpm2", ID: "n3w", OldKey: "keyfile", OldID: "0ld"},
			[]string{"tpm2 n3w, which is new, and keyfile 0ld", "/etc/x.yaml", "local_vault: {key: \"tpm2:/srv/bw/key.tpm2\"}\n", "restart batchwardend"}},
		{rekeyed{Key: "credential", Kind: "credential", File: "/etc/credstore.encrypted/bw"},
			[]string{"local_vault: {key: \"credential\"}\n", "LoadCredentialEncrypted=kek:/etc/credstore.encrypted/bw\n"}},
	} {
		got := rekeyedText(&c.r, "/etc/x.yaml")
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in: %s", want, got)
			}
		}
		if c.r.Kind != "credential" && strings.Contains(got, "LoadCredential") {
			t.Errorf("it speaks of a credential: %s", got)
		}
	}
}
