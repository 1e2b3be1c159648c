"""What the Business API demands of a record."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, NonNegativeInt, StringConstraints, field_validator
from pydantic_core import PydanticCustomError

_ISO_3166_1_ALPHA_2 = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA
    CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA
    GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP
    KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS
    MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS
    RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW
    TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_ISO_3166_1_ALPHA_2.split())

type Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"\S")]


class Business(BaseModel):
    """A record as it is sent: types are not converted, null is as good as left out, unknown members are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    registration_number: Text
    name: Text
    country: str
    email: Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    website: Annotated[str, StringConstraints(max_length=2000, pattern=r"^https?://[^\s/?#]+\S*$")] | None = None
    employees: NonNegativeInt | None = None

    @field_validator("country")
    @classmethod
    def _has_a_business_register(cls, country: str) -> str:
        if country not in COUNTRIES:
            raise PydanticCustomError("country", "Expected an ISO 3166-1 alpha-2 code, such as DE")
        if country == "AQ":
            raise PydanticCustomError("country", "Antarctica has no business register")
        return country
