package apikey

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/weirmesh/weir/examples/plugins/standard/consumer"
)

type config struct {
	consumer.Config
	Header string `json:"header" about:"where a key may stand; looked at first"`
	Query  string `json:"query" about:"a parameter where a key may stand"`
	Cookie string `json:"cookie" about:"a cookie that may be a key"`
	Hide   bool   `json:"hide" about:"keeps the key from the service"`
	Keys   []key  `json:"keys" about:"who has which key"`
}

// key is a consumer's, in the clear or as the SHA-256 of it in hexadecimal.
type key struct {
	Consumer string `json:"consumer" about:"whose key it is"`
	Key      string `json:"key" about:"the key in the clear"`
	SHA256   string `json:"sha256" about:"the SHA-256 of the key, in hexadecimal"`
}

func (c *config) Default() {
	c.Config, c.Header, c.Hide = consumer.Default(), "x-api-key", true
}

func (c *config) Validate() error {
	if err := c.Check(); err != nil {
		return err
	}
	if c.Header == "" && c.Query == "" && c.Cookie == "" {
		return errors.New("header, query and cookie are empty: a key could stand nowhere")
	}
	if c.Header != "" {
		if err := consumer.CheckHeader(c.Header); err != nil {
			return fmt.Errorf("header: %w", err)
		}
	}
	if c.Cookie != "" {
		if err := consumer.CheckHeader(c.Cookie); err != nil {
			return errors.New("cookie: \"" + c.Cookie + "\" is not a cookie's name")
		}
	}
	if strings.ContainsAny(c.Query, "&=#%+ ") {
		return errors.New("query: want the name of a parameter, without what must be escaped")
	}
	if len(c.Keys) == 0 {
		return errors.New("keys: there are none, so nobody could pass")
	}
	for i, k := range c.Keys {
		switch {
		case k.Consumer == "":
			return fmt.Errorf("keys[%d].consumer: missing", i)
		case (k.Key == "") == (k.SHA256 == ""):
			return fmt.Errorf("keys[%d] (%s): give either key or sha256", i, cmp.Or(k.Consumer, "?"))
		}
	}
	return nil
}

// place says in words where a key is to stand.
func (c *config) place() string {
	var places []string
	if c.Header != "" {
		places = append(places, "header "+c.Header)
	}
	if c.Query != "" {
		places = append(places, "query parameter "+c.Query)
	}
	if c.Cookie != "" {
		places = append(places, "cookie "+c.Cookie)
	}
	return strings.Join(places, ", or the ")
}

func (c *config) challenge() string {
	switch {
	case c.Header != "":
		return `ApiKey header="` + c.Header + `"`
	case c.Query != "":
		return `ApiKey query="` + c.Query + `"`
	}
	return `ApiKey cookie="` + c.Cookie + `"`
}
