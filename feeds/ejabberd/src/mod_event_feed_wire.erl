%%% The stanzas of the protocol, as terms for the component's stream.
-module(mod_event_feed_wire).

-export([hello/3, event/5, lost/6, kept/1, size_of/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_event_feed.hrl").

%% What an event takes beside its texts, roughly.
-define(OVERHEAD, 200).

-type attrs() :: [{binary(), binary()}].

-spec hello(binary(), jid(), attrs()) -> message().
hello(Host, Component, Attrs) ->
    message(Host, Component, [tag(<<"hello">>, Attrs)]).

%% event wraps an event. The stanza is given when it need not be parsed again.
-spec event(jid(), binary(), binary(), #kept{}, undefined | xmlel()) -> message().
event(Component, Source, Epoch, #kept{seq = Seq, kind = Kind, host = Host, user = User, t = T,
				      attrs = Attrs} = Kept, Stanza) ->
    Common = [{<<"source">>, Source}, {<<"epoch">>, Epoch}, {<<"seq">>, integer_to_binary(Seq)},
	      {<<"kind">>, Kind}],
    Named = [{<<"user">>, User} || User /= undefined] ++ Attrs ++ [{<<"t">>, seconds(T)}],
    message(Host, Component, [tag(<<"event">>, Common ++ Named) | forwarded(Kept, Stanza)]).

-spec lost(binary(), jid(), binary(), binary(), pos_integer(), pos_integer()) -> message().
lost(Host, Component, Source, Epoch, From, To) ->
    message(Host, Component,
	    [tag(<<"lost">>, [{<<"source">>, Source}, {<<"epoch">>, Epoch},
				  {<<"from">>, integer_to_binary(From)}, {<<"to">>, integer_to_binary(To)}])]).

%% kept is an event in the form in which it is kept, without its number.
-spec kept(#fact{}) -> #kept{}.
kept(#fact{kind = Kind, host = Host, user = User, t = T, attrs = Attrs, stanza = Stanza} = Fact) ->
    #kept{seq = 1, size = size_of(Fact), kind = Kind, host = Host, user = User, t = T, attrs = Attrs,
	  stanza = case Stanza of
		       none -> none;
		       {_, Text} -> Text
		   end}.

%% size_of is what an event counts for in the bounds, in bytes.
-spec size_of(#fact{}) -> pos_integer().
size_of(#fact{user = User, attrs = Attrs, stanza = Stanza}) ->
    Texts = [Text || Text <- [User, case Stanza of
					none -> undefined;
					{_, Whole} -> Whole
				    end], is_binary(Text)],
    lists:foldl(fun({_, Value}, Sum) -> byte_size(Value) + Sum end,
		?OVERHEAD + iolist_size(Texts), Attrs).

forwarded(#kept{stanza = none}, _) ->
    [];
forwarded(#kept{stanza = Text} = Kept, undefined) ->
    case fxml_stream:parse_element(Text) of
	#xmlel{} = Stanza ->
	    forwarded(Kept, Stanza);
	{error, _} ->
	    %% A module has made it. On the stream it would end the connection
	    %% again and again; without it the component records the event.
	    ?WARNING_MSG("Event ~B has a stanza that is no XML and goes without it", [Kept#kept.seq]),
	    [#xmlel{name = <<"forwarded">>, attrs = [{<<"xmlns">>, ?NS_FORWARD}]}]
    end;
forwarded(_Kept, Stanza) ->
    [#xmlel{name = <<"forwarded">>, attrs = [{<<"xmlns">>, ?NS_FORWARD}], children = [Stanza]}].

message(Host, Component, Els) ->
    #message{from = #jid{server = Host, lserver = Host}, to = Component, sub_els = Els}.

tag(Name, Attrs) ->
    #xmlel{name = Name, attrs = [{<<"xmlns">>, ?NS_EVENT_FEED} | Attrs]}.

seconds(T) ->
    iolist_to_binary([integer_to_binary(T div 1000), $.,
		      string:pad(integer_to_list(T rem 1000), 3, leading, $0)]).
