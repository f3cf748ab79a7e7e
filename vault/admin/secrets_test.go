package admin

import (
	"testing"

	"batchwarden/platform/secret/secrettest"
)

func TestSecretsAreNotShown(t *testing.T) {
	secrettest.Mute(t, Config{}, Admin{}, document{})
	secrettest.Quiet(t, Credentials{}) // the operator asks for them
}
