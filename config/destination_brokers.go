package config

import (
	"math"
	"strings"
)

// rabbitSettings are the keys of type rabbit.
type rabbitSettings Destination

// Keys implements Settings.
func (d *rabbitSettings) Keys() []Key {
	x, p := &d.Exchange, &d.Broker
	return join([]field{
		texts("addresses", &p.Addresses, []any{"localhost:5672"}, isBrokerAddress),
		text("username", &p.Username, "guest", nonEmpty),
	},
		secret("password", &p.Password, "guest", nonEmpty),
		[]field{
			text("virtual_host", &p.VirtualHost, "/", nonEmpty),
			section("tls", &d.TLS, (*TLS).fields),
			text("exchange", &x.Name, nil, filled),
			text("exchange_type", &x.Type, "topic", nonEmpty),
			boolean("durable", &x.Durable, true),
			choice("declare", &x.Declare, "active", "active", "passive", "none"),
			text("alternate_exchange", &x.AlternateExchange, nil, nonEmpty),
			boolean("auto_delete", &x.AutoDelete, false),
			boolean("persistent", &p.Persistent, true),
		}, d.Rabbit.publishing(true), p.connection())
}

// snsSettings are the keys of type sns.
type snsSettings SNS

// Keys implements Settings.
func (d *snsSettings) Keys() []Key {
	s := (*SNS)(d)
	return join([]field{
		text("topic", &s.Topic, nil, filled),
		text("region", &s.Region, nil, filled),
		text("account_id", &s.AccountID, nil, filled),
		text("endpoint", &s.Host, nil, isServiceHost),
	},
		s.awsFields(),
		[]field{
			integer("calls", &s.PoolSize, int64(MaxSNSCalls), 1, math.MaxInt16),
			boolean("message_structure_json", &s.MessageStructureJSON, false),
		}, s.publishing(true))
}

// awsFields are the keys by which requests are signed.
func (s *SNS) awsFields() []field {
	return join([]field{text("access_key_id", &s.AccessKeyID, nil, filled)},
		secret("secret_access_key", &s.SecretAccessKey, nil, filled),
		secret("session_token", &s.SessionToken, nil, filled), // ours, as all below
		[]field{
			text("role_arn", &s.RoleARN, nil, isRoleARN),
			text("external_id", &s.ExternalID, nil, filled),
		})
}

func isBrokerAddress(s string) *complaint {
	bad := isDialAddress(s)
	if bad != nil {
		bad.remedy = `write host:port, such as "localhost:5672"`
	}
	return bad
}

func isRoleARN(s string) *complaint {
	if parts := strings.Split(s, ":"); len(parts) == 6 && parts[0] == "arn" && parts[2] == "iam" && strings.HasPrefix(parts[5], "role/") {
		return nil
	}
	return &complaint{quote(s) + " is no ARN of a role", `write role_arn = "arn:aws:iam::123456789012:role/eventpusher", say`}
}

// Check implements Settings.
func (d *rabbitSettings) Check(s *Section) {
	s.Require("exchange", `name the exchange: exchange = "events"`, d.Exchange.Name == "")
	s.l.declaration(&d.Exchange, s.at)
	s.l.broker(&d.Broker, d.TLS, s.at)
}

// declaration checks what is declared of an exchange that has to be there, or is not asked for.
func (l *loader) declaration(x *Exchange, at keyPath) {
	if x.Declare != "active" && (x.AlternateExchange != "" || x.AutoDelete) {
		l.errorf(at.with("declare").String(), quote(x.Declare)+" declares nothing, so alternate_exchange and auto_delete have no effect", `remove them, or write declare = "active"`)
	}
}

// broker checks what both ways to write a connection to RabbitMQ have.
func (l *loader) broker(p *RabbitPool, tls *TLS, at keyPath) {
	if p.Addresses != nil && len(p.Addresses) == 0 {
		l.errorf(at.with("addresses").String(), "is empty", `write addresses = ["localhost:5672"], say, or remove the key`)
	}
	for _, key := range []string{"host", "port"} {
		if len(p.Addresses) > 0 && l.given(at.with(key)...) {
			l.errorf(at.with(key).String(), "is given beside addresses", "remove one of the two")
		}
	}
	if p.SASL == "external" && (tls == nil || tls.CertFile == "") {
		l.errorf(at.with("sasl").String(), `"external" logs in by a client certificate, and there is none`, "write certfile and keyfile under ["+at.with("tls").String()+"]")
	}
}

// Check implements Settings.
func (d *snsSettings) Check(section *Section) {
	s, l, at := (*SNS)(d), section.l, section.at
	l.require(at.with("topic").String(), `write the topic's ARN: topic = "arn:aws:sns:eu-west-1:123456789012:events"`, s.Topic == "")
	if parts := strings.Split(s.Topic, ":"); len(parts) == 6 && parts[0] == "arn" {
		s.fromARN(l, parts, at)
	} else {
		l.require(at.with("account_id").String(), "write the AWS account that owns the topic, as a string of 12 digits, or the whole ARN as topic", s.AccountID == "" && s.Topic != "")
	}
	l.awsKeys(s, at)
}

// fromARN takes region and account out of arn:PARTITION:sns:REGION:ACCOUNT:NAME.
func (s *SNS) fromARN(l *loader, parts []string, at keyPath) {
	for _, part := range []struct {
		key   string
		value *string
		arns  string
	}{{"region", &s.Region, parts[3]}, {"account_id", &s.AccountID, parts[4]}} {
		if *part.value != "" && *part.value != part.arns {
			l.errorf(at.with(part.key).String(), quote(*part.value)+" is not that of the topic's ARN", "remove the key: the ARN says it")
		}
		*part.value = part.arns
	}
}

// awsKeys checks the credentials: both parts of a key, or none.
func (l *loader) awsKeys(s *SNS, at keyPath) {
	const remedy = "write both, or neither: then they are looked for where the AWS SDK does, such as in AWS_ACCESS_KEY_ID, ~/.aws or the role of the machine"
	secret := at.with("secret_access_key").String()
	l.require(at.with("access_key_id").String(), remedy, s.AccessKeyID == "" && s.SecretAccessKey != "")
	l.require(secret, remedy, s.AccessKeyID != "" && s.SecretAccessKey == "")
	if s.AccessKeyID == "" && s.SessionToken != "" {
		l.errorf(at.with("session_token").String(), "belongs to an access key, and none is given", "write access_key_id and secret_access_key too, or remove the token")
	}
	if s.RoleARN == "" && s.ExternalID != "" {
		l.errorf(at.with("external_id").String(), "is used to assume a role, and none is given", "write role_arn, or remove the key")
	}
}
