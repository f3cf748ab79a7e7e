package secret_test

import (
	"testing"

	"batchwarden/platform/secret"
	"batchwarden/platform/secret/secrettest"
)

type mute struct {
	secret.Mute
	Token string
	key   [32]byte
	inner quiet
}

type quiet struct {
	secret.Quiet
	ID string `json:"id"`
}

func TestMuteAndQuiet(t *testing.T) {
	_ = mute{}.key
	_ = mute{}.inner
	secrettest.Mute(t, mute{})
	secrettest.Quiet(t, quiet{})
}
