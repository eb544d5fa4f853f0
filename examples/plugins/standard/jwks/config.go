package jwks

import (
	"errors"
	"fmt"
	"net/url"
)

// Config says where the keys are, and how they are kept.
type Config struct {
	Service string `json:"service" about:"the issuer, as a service that the policy is granted"`
	URL     string `json:"url" about:"where the key set is"`
	Issuer  string `json:"issuer" about:"instead of url: the key set is where /.well-known/openid-configuration below it says"`
	Refresh int64  `json:"refresh" about:"after how many seconds the keys are fetched again"`
	Keep    int64  `json:"keep" about:"for how many seconds they are good while they cannot be fetched"`
	Timeout int64  `json:"timeout" about:"how many seconds fetching them may take"`
	Wait    int64  `json:"wait" about:"how many seconds a request waits for them"`
	MaxSize int    `json:"maxBytes" about:"how long a key set may be"`
}

// Default fetches keys every five minutes, and keeps them for a day.
func Default() Config {
	return Config{Refresh: 300, Keep: 24 * 3600, Timeout: 5, Wait: 5, MaxSize: 16 << 10}
}

// Asked reports whether keys are to be fetched at all.
func (c *Config) Asked() bool { return c.Service != "" || c.URL != "" || c.Issuer != "" }

// Check says what is wrong with it.
func (c *Config) Check() error {
	const day, most = 24 * 3600, 256 << 10
	switch {
	case c.Service == "":
		return errors.New("service: missing: name the issuer's service, which the policy is granted (spec.services)")
	case (c.URL == "") == (c.Issuer == ""):
		return errors.New("give either the url of the key set, or the issuer")
	case c.Refresh < 1 || c.Refresh > 30*day:
		return errors.New("refresh: want 1 to 2592000 seconds")
	case c.Keep < c.Refresh || c.Keep > 365*day:
		return errors.New("keep: want at least refresh, and at most a year")
	case c.Timeout < 1 || c.Timeout > 60 || c.Wait < 0 || c.Wait > 60:
		return errors.New("timeout: want 1 to 60 seconds, and for wait 0 to 60")
	case c.MaxSize < 1 || c.MaxSize > most:
		return errors.New("maxBytes: want 1 to 262144")
	}
	if c.Issuer != "" {
		_, err := place(c.Issuer)
		return prefixed("issuer", err)
	}
	_, err := place(c.URL)
	return prefixed("url", err)
}

func prefixed(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// place reads the URL of a document.
func place(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it cannot be read")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "":
		return nil, errors.New("want https://HOST/PATH, or http")
	}
	return u, nil
}
