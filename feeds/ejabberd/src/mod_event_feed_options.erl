%%% The options of mod_event_feed: what they may be, their defaults, and what
%%% ejabberd's manual says of them.
-module(mod_event_feed_options).

-export([type/1, defaults/0, doc/0]).

-spec type(atom()) -> econf:validator().
type(component) -> econf:domain();
type(source) -> econf:binary("^[^[:space:][:cntrl:]]{1,128}$", [unicode]);
type(buffer_events) -> econf:pos_int();
type(buffer_bytes) -> econf:pos_int();
type(window) -> econf:pos_int();
type(room_missed) -> econf:enum(['members-only', all, none]);
type(room_missed_limit) -> econf:int(1, 1000).

-spec defaults() -> [atom() | {atom(), term()}].
defaults() ->
    [component,
     {source, atom_to_binary(node(), utf8)},
     {buffer_events, 100000},
     {buffer_bytes, 64 * 1024 * 1024},
     {window, 512},
     {room_missed, 'members-only'},
     {room_missed_limit, 200}].

-spec doc() -> map().
doc() ->
    #{desc => <<"Tells an external component what happens on this server: messages, presence, "
		"sessions and rooms. Events are numbered and kept until the component has "
		"acknowledged them.">>,
      opts =>
	  [{component, #{value => <<"Domain">>,
			 desc => <<"The name of the component. It is the same for all virtual hosts.">>}},
	   {source, #{value => <<"Name">>,
		      desc => <<"A name for this node that does not change and that no other node has. "
				"The default is the name of the node.">>}},
	   {buffer_events, #{value => <<"Number">>,
			     desc => <<"How many events are kept for a component that does not acknowledge "
				       "them. Beyond it the oldest are lost. The default is '100000'.">>}},
	   {buffer_bytes, #{value => <<"Number">>,
			    desc => <<"How many bytes of events are kept. The default is '67108864'.">>}},
	   {window, #{value => <<"Number">>,
		      desc => <<"How many events may be on their way unacknowledged. "
				"The default is '512'.">>}},
	   {room_missed, #{value => <<"members-only | all | none">>,
			   desc => <<"The rooms whose members are told of what is said while they "
				     "have no session. The default is 'members-only'.">>}},
	   {room_missed_limit, #{value => <<"Number">>,
				 desc => <<"If more members of a room are away, nobody is told. "
					   "The default is '200', at most '1000'.">>}}],
      example => ["modules:", "  mod_event_feed:", "    component: events.example.org"]}.
